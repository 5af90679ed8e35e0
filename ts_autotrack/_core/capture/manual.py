"""Explicit events: track, identify, group. These functions never raise into the application."""

from __future__ import annotations

from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import acting_scope, count_fault, count_invalid, merge_extras, record_event
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.capture.stack import current_frame, place
from ts_autotrack._core.contract import GROUP, IDENTIFY, TRACK
from ts_autotrack._core.forms import class_name
from ts_autotrack._core.identity.arguments import take_group_id
from ts_autotrack._core.identity.ids import NoIdError, read_id
from ts_autotrack._core.identity.scope import current, nearest_open
from ts_autotrack._core.snapshot import UNCOUNTED_BYTES, has_items, plain_values, size_of, snapshot

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
        name = str.strip(event_name) if issubclass(type(event_name), str) else ""
        if not name:
            return _invalid(f"track({class_name(event_name)}): the event's name must be a non-empty text")
        scope = _scope(user_id, group_id, context)
        moment = None if timestamp is None else _timestamp(timestamp)
        if timestamp is not None and moment is None:
            return _invalid(f"track({_shown(name)}, timestamp=...): not a readable point in time")
        if properties is not None and not has_items(properties):
            return _invalid(f"track({_shown(name)}): properties must be a dict, not {class_name(properties)}")
        names, extras = ((), None) if properties is None else _split(properties)
        record_event(_template(name, names, _where(scope)), extras, scope, moment)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        count_fault("track()", error)


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
        if not has_items(traits):
            return _invalid(f"identify({class_name(traits)}): traits must be a dict")
        scope = _scope(user_id, None, None)
        record_event(EventTemplate(IDENTIFY, "", _NOTHING, _where(scope)), snapshot(traits), scope)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        count_fault("identify()", error)


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
        try:
            account = read_id(group_id)
        except NoIdError as refusal:
            return _invalid(f"group(): {refusal}")
        if account is None or (traits is not None and not has_items(traits)):
            return _invalid("group(): group_id must be the account's id, and traits must be a dict")
        if not issubclass(type(group_type), str):
            return _invalid(f"group(group_type=...): must be a text, not {class_name(group_type)}")
        scope = _scope(None, account, None)
        template = EventTemplate(GROUP, "", _NOTHING, _where(scope), group_id=account)
        own = {} if traits is None else snapshot(traits)
        record_event(template, merge_extras(own, snapshot({"group_type": group_type})), scope)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        count_fault("group()", error)


MAX_TEMPLATES = 1_000
"""Templates kept by `track`, for distinct event names and property names."""
MAX_NAMES, MAX_NAME_LENGTH = 50, 100
"""Bounds of the property names in a kept template, and of the event's name."""

_NOTHING: dict[str, object] = {}
_templates: dict[tuple[str, tuple[str, ...]], EventTemplate] = {}


def _split(properties: Mapping[str, object]) -> tuple[tuple[str, ...], Extras]:
    """Return names for the template and values for the event; no names and a snapshot for unusual properties."""
    if type(properties) is dict and len(properties) <= MAX_NAMES:
        if not properties:
            return (), None
        properties = properties.copy()  # in one step: another thread may change the dict meanwhile
        names = tuple(properties)
        if all(type(name) is str and len(name) <= MAX_NAME_LENGTH for name in names):
            values = plain_values(properties.values())
            if values is not None:
                return names, values
    return (), snapshot(properties)


def _template(event_name: str, names: tuple[str, ...], where: str) -> EventTemplate:
    """Return the kept template of an event name and property names, or a new template if `where` is given."""
    template = _templates.get((event_name, names))
    if template is None or where:
        length = len(event_name)
        size = size_of(event_name) if length > UNCOUNTED_BYTES else 0
        template = EventTemplate(TRACK, event_name, _NOTHING, where, captured=names, size=size)
        if length <= MAX_NAME_LENGTH and len(_templates) < MAX_TEMPLATES and not where:
            _templates[event_name, names] = template
    return template


def _scope(user_id: object, group_id: object, context: Mapping[str, object] | None) -> Scope:
    if user_id is None and group_id is None and context is None:
        return acting_scope()
    values = _NOTHING
    if context is not None:
        values, group_id = take_group_id(context, group_id)
    scope = nearest_open(current()).derive(user_id, group_id, values)
    return scope if scope.ready else scope.resolve()


def _where(scope: Scope) -> str:
    """Return the application's line for an event without a user: the warning names the line."""
    return place(current_frame(2)) if scope.user_id is None else ""


def _invalid(why: str) -> None:
    count_invalid(f"{place(current_frame(2))}: {why}")


def _shown(text: str) -> str:
    return repr(text[:MAX_NAME_LENGTH])


def _timestamp(value: datetime | float | str) -> str | None:
    """Return a point in time in the contract's form; None for other values. Never raises."""
    from datetime import datetime, timedelta, timezone

    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
        elif isinstance(value, bool):
            return None
        elif not isinstance(value, datetime):
            value = datetime.fromtimestamp(float(value), timezone.utc)
        # Field by field: a class of its own, such as pandas', may hold no time at all.
        local = datetime(  # noqa: DTZ001 - the offset follows
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond
        )
        utc = local - (value.utcoffset() or timedelta())
        return utc.isoformat(timespec="microseconds") + "Z"
    except Exception:  # noqa: BLE001 - no point in time, or a time zone of the application that fails
        return None
