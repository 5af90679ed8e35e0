"""Explicit events: track, identify, group. These functions never raise into the application."""

from __future__ import annotations

from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import count_invalid, merge_extras, record_event
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.capture.stack import current_frame, place
from ts_autotrack._core.contract import GROUP, IDENTIFY, TRACK
from ts_autotrack._core.diagnostics import fault
from ts_autotrack._core.identity.scope import as_id, current, nearest_open
from ts_autotrack._core.snapshot import plain_values, snapshot

TYPE_CHECKING = False  # typing costs as much to import as this whole library
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
    """Send a custom event.

    Never raises and never blocks: an event with invalid arguments is counted as "invalid", with a warning.

    Args:
        event_name: The event's name, such as "invite_sent".
        properties: The event's properties, over the properties of the enclosing `user_context`. A snapshot is taken.
        user_id: The acting user. Default: the user of the enclosing `user_context`, or of OpenTelemetry baggage.
        group_id: The user's account; same default.
        timestamp: Time of the event, for events of the past: a datetime (UTC if the datetime has no zone), seconds
            since 1970, or ISO 8601 text. Sent unchanged. Default: now, but at least 1 ms after the user's previous
            event, as the vendor asks; at least 1 us once the user's timestamps are a second ahead of the clock.
        context: Keys for the event's `context`, over the context of the enclosing `user_context`.

    Example:
        >>> from ts_autotrack import track
        >>> track("invite_sent", {"role": "admin"}, user_id="user_123", group_id="account_456")
    """
    try:
        if not isinstance(event_name, str) or not event_name.strip():
            return _invalid(f"track({type(event_name).__name__}): the event's name must be a non-empty text")
        scope = _scope(user_id, group_id, context)
        moment = None if timestamp is None else _timestamp(timestamp)
        if timestamp is not None and moment is None:
            return _invalid(f"track({event_name!r}, timestamp=...): not a readable point in time")
        if properties is not None and not hasattr(properties, "items"):
            return _invalid(f"track({event_name!r}): properties must be a dict, not {type(properties).__name__}")
        names, extras = _split(properties) if properties else ((), None)
        record_event(_template(event_name.strip(), names, _where(scope)), extras, scope, moment)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        next(buffer.drops["fault"])
        fault("track()", error)


def identify(traits: Mapping[str, object], *, user_id: object = None) -> None:
    """Tell ThriveStack about a user: the `/identify` endpoint. The order among the surrounding events is kept.

    Args:
        traits: Traits of the user, such as `user_email`, `user_name`. A snapshot is taken.
        user_id: The user. Default: the user of the enclosing `user_context`, or of OpenTelemetry baggage.

    Example:
        >>> from ts_autotrack import identify
        >>> identify({"user_email": "JaneDoe@example.com"}, user_id="user_123")
    """
    try:
        if not hasattr(traits, "items"):
            return _invalid(f"identify({type(traits).__name__}): traits must be a dict")
        scope = _scope(user_id, None, None)
        record_event(EventTemplate(IDENTIFY, "", _NOTHING, _where(scope)), snapshot(traits), scope)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        next(buffer.drops["fault"])
        fault("identify()", error)


def group(group_id: object, traits: Mapping[str, object] | None = None, *, group_type: str = "Account") -> None:
    """Tell ThriveStack about an account: the `/group` endpoint. The vendor asks for a call at the account's creation.

    Args:
        group_id: The account's id.
        traits: Traits of the account, such as `account_name`, `plan_name`. A snapshot is taken.
        group_type: "Account" for the billing root; otherwise "Organization", "Tenant", "Workspace" or "Team".

    Example:
        >>> from ts_autotrack import group, user_context
        >>> with user_context("user_123"):
        ...     group("account_456", {"account_name": "Example Inc."})
    """
    try:
        account = as_id(group_id)
        if account is None or (traits is not None and not hasattr(traits, "items")):
            return _invalid("group(): group_id must be the account's id, and traits must be a dict")
        scope = _scope(None, account, None)
        template = EventTemplate(GROUP, "", _NOTHING, _where(scope), group_id=account)
        record_event(template, merge_extras(snapshot(traits or _NOTHING), {"group_type": group_type}), scope)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        next(buffer.drops["fault"])
        fault("group()", error)


MAX_TEMPLATES = 1_000
"""Templates kept by `track`, for distinct event names and property names."""
MAX_NAMES, MAX_NAME_LENGTH = 50, 100
"""Bounds of the property names in a kept template."""

_NOTHING: dict[str, object] = {}
_templates: dict[tuple[str, tuple[str, ...]], EventTemplate] = {}


def _split(properties: Mapping[str, object]) -> tuple[tuple[str, ...], Extras]:
    """Return names for the template and values for the event; no names and a snapshot for unusual properties."""
    if type(properties) is dict and len(properties) <= MAX_NAMES:
        names = tuple(properties)
        if all(type(name) is str and len(name) <= MAX_NAME_LENGTH for name in names):
            values = plain_values(properties.values())
            if values is not None and len(values) == len(names):  # another thread may change the dict meanwhile
                return names, values
    return (), snapshot(properties)


def _template(event_name: str, names: tuple[str, ...], where: str) -> EventTemplate:
    """Return the kept template of an event name and property names, or a new template if `where` is given."""
    template = _templates.get((event_name, names))
    if template is None or where:
        template = EventTemplate(TRACK, event_name, _NOTHING, where, captured=names)
        if len(_templates) < MAX_TEMPLATES and not where:
            _templates[event_name, names] = template
    return template


def _scope(user_id: object, group_id: object, context: Mapping[str, object] | None) -> Scope:
    scope = current()
    if user_id is not None or group_id is not None or context:
        values = dict(context or _NOTHING)
        if group_id is None:
            group_id = values.pop("group_id", None)  # an id here counts as the argument
        scope = nearest_open(scope).derive(user_id, group_id, values)
        scope.weigh()
    return scope if scope.ready else scope.resolve()


def _where(scope: Scope) -> str:
    """Return the application's line for an event without a user: the warning names the line."""
    return place(current_frame(2)) if scope.user_id is None else ""


def _invalid(why: str) -> None:
    count_invalid(f"{place(current_frame(2))}: {why}")


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
