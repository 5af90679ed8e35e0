"""The three endpoints by hand: track, identify, group. None of them ever raises into the application."""

from __future__ import annotations

import sys

from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import count_invalid, joined, place, record
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.diagnostics import fault
from ts_autotrack._core.identity.scope import as_id, current, nearest_open
from ts_autotrack._core.snapshot import light, snapshot

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from ts_autotrack._core.capture.record import Extras
    from ts_autotrack._core.identity.scope import Scope


def track(
    event_name: str,
    properties: Mapping[str, object] | None = None,
    *,
    user_id: object = None,
    group_id: object = None,
    timestamp: datetime | float | str | None = None,
    context: Mapping[str, object] | None = None,
) -> None:
    """Send a custom event, from anywhere.

    Never raises and never blocks: an event that names nothing to send is counted as "invalid", with a warning.

    Args:
        event_name: The event's name, such as "invite_sent".
        properties: The event's properties, over those of the enclosing `user_context`. A snapshot is taken.
        user_id: The acting user; default: that of the enclosing `user_context`, or of OpenTelemetry baggage.
        group_id: The user's account; same default.
        timestamp: When it happened, for events of the past: a datetime (taken as UTC if it has no zone), seconds since
            1970, or ISO 8601 text. Sent as it is. Default: now, or a millisecond after the user's event before it,
            as the vendor asks, until that is a second ahead of the clock; from then on a microsecond.
        context: Keys for the event's `context`, over those of the enclosing `user_context`.

    Example:
        >>> from ts_autotrack import track
        >>> track("invite_sent", {"role": "admin"}, user_id="user_123", group_id="account_456")
    """
    try:
        if not isinstance(event_name, str) or not event_name.strip():
            return _invalid(f"track({type(event_name).__name__}): the event's name must be a text that is not empty")
        scope = _scope(user_id, group_id, context)
        moment = None if timestamp is None else _timestamp(timestamp)
        if timestamp is not None and moment is None:
            return _invalid(f"track({event_name!r}, timestamp=...): not a point in time that can be read")
        if properties is not None and not hasattr(properties, "items"):
            return _invalid(f"track({event_name!r}): properties must be a dict, not {type(properties).__name__}")
        names, extras = _parted(properties) if properties else ((), None)
        record(_site(event_name.strip(), names, _where(scope)), extras, scope, moment)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # counts one without a call, for which there may be no room
            break
    except Exception as error:
        next(buffer.drops["fault"])
        fault("track()", error)


def identify(traits: Mapping[str, object], *, user_id: object = None) -> None:
    """Tell ThriveStack about a user: the `/identify` endpoint. Keeps its place among the events around it.

    Args:
        traits: What is known of the user, such as `user_email`, `user_name`. A snapshot is taken.
        user_id: The user; default: that of the enclosing `user_context`, or of OpenTelemetry baggage.

    Example:
        >>> from ts_autotrack import identify
        >>> identify({"user_email": "JaneDoe@example.com"}, user_id="user_123")
    """
    try:
        if not hasattr(traits, "items"):
            return _invalid(f"identify({type(traits).__name__}): traits must be a dict")
        scope = _scope(user_id, None, None)
        record(EventTemplate("/identify", "", _NOTHING, _where(scope)), snapshot(traits), scope)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # counts one without a call, for which there may be no room
            break
    except Exception as error:
        next(buffer.drops["fault"])
        fault("identify()", error)


def group(group_id: object, traits: Mapping[str, object] | None = None, *, group_type: str = "Account") -> None:
    """Tell ThriveStack about an account: the `/group` endpoint. The vendor asks for it when the account is created.

    Args:
        group_id: The account's id.
        traits: What is known of it, such as `account_name`, `plan_name`. A snapshot is taken.
        group_type: "Account" for the billing root; "Organization", "Tenant", "Workspace" or "Team".

    Example:
        >>> from ts_autotrack import group, user_context
        >>> with user_context("user_123"):
        ...     group("account_456", {"account_name": "Example Inc."})
    """
    try:
        wanted = as_id(group_id)
        if wanted is None or (traits is not None and not hasattr(traits, "items")):
            return _invalid("group(): it needs the account's id, and traits that are a dict")
        scope = _scope(None, wanted, None)
        site = EventTemplate("/group", "", _NOTHING, _where(scope), group_id=wanted)
        record(site, joined(snapshot(traits or _NOTHING), {"group_type": group_type}), scope)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # counts one without a call, for which there may be no room
            break
    except Exception as error:
        next(buffer.drops["fault"])
        fault("group()", error)


_NOTHING: dict[str, object] = {}
_MOST_SITES = 1_000
_MOST_NAMES, _LONGEST_NAME = 50, 100
_sites: dict[tuple[str, tuple[str, ...]], EventTemplate] = {}


def _parted(properties: Mapping[str, object]) -> tuple[tuple[str, ...], Extras]:
    """Return names for the site and their values for the event; no names and a snapshot if that is not so simple."""
    if type(properties) is dict and len(properties) <= _MOST_NAMES:
        names = tuple(properties)
        if all(type(name) is str and len(name) <= _LONGEST_NAME for name in names):
            values = light(properties.values())
            if values is not None and len(values) == len(names):  # else another thread is changing it
                return names, values
    return (), snapshot(properties)


def _site(event_name: str, names: tuple[str, ...], where: str) -> EventTemplate:
    """Return the site of an event's name and its properties' names: the same one, while there are not too many."""
    site = _sites.get((event_name, names))
    if site is None or where:
        site = EventTemplate("/track", event_name, _NOTHING, where, captured=names)
        if len(_sites) < _MOST_SITES and not where:
            _sites[event_name, names] = site
    return site


def _scope(user_id: object, group_id: object, context: Mapping[str, object] | None) -> Scope:
    scope = current()
    if user_id is not None or group_id is not None or context:
        values = dict(context or _NOTHING)
        if group_id is None:
            group_id = values.pop("group_id", None)  # it is an id, wherever it is given
        scope = nearest_open(scope).derive(user_id, group_id, values)
        scope.weigh()
    return scope if scope.ready else scope.resolve()


def _where(scope: Scope) -> str:
    """Return the application's line; it is asked for only where a message will name it."""
    return place(sys._getframe(2)) if scope.user_id is None else ""


def _invalid(why: str) -> None:
    count_invalid(f"{place(sys._getframe(2))}: {why}")


def _timestamp(value: datetime | float | str) -> str | None:
    from datetime import datetime, timezone

    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
        elif not isinstance(value, datetime):
            value = datetime.fromtimestamp(float(value), timezone.utc)
        if value.tzinfo is None:
            value = value.replace(tzinfo=timezone.utc)
        return f"{value.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
    except (ValueError, TypeError, OverflowError, OSError):
        return None
