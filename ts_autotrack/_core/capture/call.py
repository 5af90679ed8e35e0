"""From a finished call to a record in the buffer."""

from __future__ import annotations

from time import time_ns

from ts_autotrack._core.capture.binding import bindings, own_scope
from ts_autotrack._core.capture.buffer import CLOSED, buffer
from ts_autotrack._core.capture.held import hold
from ts_autotrack._core.capture.stack import additions, current_frame, take_additions
from ts_autotrack._core.closures import CODE_NAME
from ts_autotrack._core.counters import Charge, MeteredDict
from ts_autotrack._core.diagnostics import fault, warn_once
from ts_autotrack._core.forms import class_name
from ts_autotrack._core.identity.request_view import RequestView
from ts_autotrack._core.identity.scope import current
from ts_autotrack._core.outcomes import is_clean_exit, is_control_flow
from ts_autotrack._core.snapshot import UNCOUNTED_BYTES, has_items, plain_values, size_of, snapshot

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any, TypeAlias

    from ts_autotrack._core.capture.record import EventTemplate, Extras
    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import FinishedCall

    Argument: TypeAlias = tuple[str, int, tuple[object, ...]]
    """Captured argument: name, index among the positional arguments or -1, and a tuple of the default or nothing."""
    Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
    """Positional and keyword arguments of a call."""


class CaptureRule:
    """Instructions for one tracked callable; made once, at decoration.

    Attributes:
        template: Common part of all events.
        code_name: Name of the wrapper's code.
        arguments: Places of the arguments to copy into the events, for calls whose arguments come as given.
        on: Outcome that makes an event: "success", "error" or "always".
        describe: User's callable that makes properties of a finished call.
        plain: True if a successful call needs nothing but the template and the captured arguments; the wrapper appends
            the record directly.
    """

    __slots__ = ("arguments", "code_name", "describe", "on", "plain", "template")

    def __init__(
        self,
        template: EventTemplate,
        arguments: tuple[Argument, ...],
        on: str,
        describe: Callable[[FinishedCall], Mapping[str, object]] | None,
        code_name: str = CODE_NAME,
    ) -> None:
        self.code_name = code_name
        self.template = template
        self.arguments = arguments
        self.on = on
        self.describe = describe
        self.plain = on == "success" and describe is None

    def bound(self) -> CaptureRule:
        """Return the rule for the same callable with its first argument bound."""
        shifted = tuple((name, position - 1, default) for name, position, default in self.arguments)
        return CaptureRule(self.template, shifted, self.on, self.describe, self.code_name)

    def capture(self, values: tuple[Any, ...]) -> Extras:
        """Return a snapshot of the captured arguments, before the call. Never raises."""
        try:
            return plain_values(values) or snapshot(dict(zip(self.template.captured, values, strict=True)))
        except RecursionError:  # the stack has no space for a call of `fault`
            pass
        except Exception as error:  # noqa: BLE001 # pragma: no cover - the barrier: nothing known raises here
            fault(f"capturing arguments of {self.template.where}", error)
        return None

    def capture_given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Extras:
        """Return a snapshot of the captured ones of the arguments of a call, as given. Never raises."""
        try:
            values: dict[str, object] = {}
            for name, position, default in self.arguments:
                if 0 <= position < len(args):
                    values[name] = args[position]
                elif name in kwargs:
                    values[name] = kwargs[name]
                elif default:
                    values[name] = default[0]
            return snapshot(values)
        except RecursionError:
            pass
        except Exception as error:  # noqa: BLE001 # pragma: no cover - the barrier: nothing known raises here
            fault(f"capturing arguments of {self.template.where}", error)
        return None


def acting_scope() -> Scope:
    """Return the current scope, with ids from baggage."""
    scope = current()
    if scope.ready or (buffer.append_limit == CLOSED and isinstance(scope, RequestView)):
        return scope  # the application's resolver is not asked for events that are dropped
    return scope.resolve()


def begin_scope() -> Scope:
    """Return the scope of a call that may end in another context, with ids from baggage. Never raises."""
    try:
        return acting_scope()
    except Exception as error:  # noqa: BLE001 # pragma: no cover - the barrier: nothing known raises here
        fault("reading the acting user", error)
        return current()


def finish_call(
    rule: CaptureRule,
    extras: Extras,
    call: Arguments | None,
    result: object = None,
    error: BaseException | None = None,
    scope: Scope | None = None,
    frame: FrameType | None = None,
) -> None:
    """Record a finished call that the wrapper does not append directly. Never raises.

    Args:
        rule: Instructions for the callable.
        extras: Captured arguments.
        call: Arguments of the call; None unless the rule describes finished calls.
        result: Return value.
        error: Raised exception.
        scope: Result of `begin_scope` at the beginning of a call that may end in another context.
        frame: Frame of the call, for properties added by `add_properties`; default: the caller's.
    """
    try:
        counts = _counts(rule.on, error)
        if buffer.append_limit == CLOSED:
            if counts:
                next(buffer.closed_drops)
        elif counts:
            if not rule.plain:
                extras = _complete(rule, extras, call, result, error)
            if additions:
                extras = with_additions(rule, extras, frame or current_frame(1))
            record_event(rule.template, extras, scope and _decided(scope, frame or current_frame(1)))
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as ours:  # noqa: BLE001 - the barrier: a sandbox may forbid clocks
        count_fault(f"recording a call of {rule.template.where}", ours)
    finally:
        if additions:  # the call made no event
            number = id(frame or current_frame(1))
            additions.pop(number, None)
            bindings.pop(number, None)


def _counts(on: str, error: BaseException | None) -> bool:
    """Return True if a call that ended so makes an event."""
    if error is None or is_clean_exit(error):
        return on != "error"
    return on != "success" and not is_control_flow(error)


def _decided(scope: Scope, frame: FrameType) -> Scope:
    """Return the scope of a call that began with `scope` and ended in `frame`."""
    if bindings:
        scope = own_scope(scope, id(frame), frame.f_code)
    return scope.resolve_later() if isinstance(scope, RequestView) else scope


def count_fault(activity: str, error: Exception) -> None:
    """Count an event lost by a fault of this library. Raises only errors of the application's own signal handlers."""
    next(buffer.drops["fault"])
    fault(activity, error)


def with_additions(rule: CaptureRule, extras: Extras, frame: FrameType) -> Extras:
    """Return the captured arguments with the properties attached so far to the call of a frame. Never raises."""
    try:
        added = take_additions(id(frame), frame.f_code)
        return merge_extras(rule.template.by_name(extras), added) if added else extras
    except RecursionError:
        return extras


def _complete(
    rule: CaptureRule, extras: Extras, call: Arguments | None, result: object, error: BaseException | None
) -> dict[str, Any]:
    """Return the captured arguments by name, with the outcome and the user's properties if the rule asks for them."""
    properties = rule.template.by_name(extras)
    if rule.on == "always":
        properties = merge_extras(
            properties, {"outcome": "success" if error is None or is_clean_exit(error) else "error"}
        )
    if rule.describe is not None and call is not None:
        properties = merge_extras(properties, _describe(rule, rule.describe, call, result, error))
    return properties


def _describe(
    rule: CaptureRule,
    describe: Callable[[FinishedCall], Mapping[str, object]],
    call: Arguments,
    result: object,
    error: BaseException | None,
) -> dict[str, object]:
    from ts_autotrack.typing import FinishedCall

    properties: Any = None
    try:
        properties = describe(FinishedCall(*call, result, error))
        problem = "" if has_items(properties) else f"returned no dict but a {class_name(properties)}"
    except Exception as raised:  # noqa: BLE001 - the user's callable
        problem = f"raised {type(raised).__name__}"
    if not problem:
        return snapshot(properties)
    warn_once(
        ("describe", rule.template.where),
        f"the properties= callable of {rule.template.where} {problem}; its events are sent without the callable's "
        "properties",
    )
    return {}


def merge_extras(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of both; `second` wins. Long properties stay counted, and replaced properties do not."""
    if not first:
        return second
    merged = {**first, **second}
    if isinstance(first, MeteredDict) and len(merged) == len(first) + len(second):
        size = first.size + (second.size if isinstance(second, MeteredDict) else size_of(second))
    else:
        size = size_of(merged)
    return MeteredDict(merged, size) if size > UNCOUNTED_BYTES else merged


def record_event(
    template: EventTemplate, extras: Extras, scope: Scope | None = None, moment: int | str | None = None
) -> None:
    """Append a record to the buffer, or count the event as dropped.

    Args:
        template: Common part of the event.
        extras: Snapshot of the event's own properties or traits.
        scope: Scope of the event, with ids from baggage; default: the current scope.
        moment: Nanoseconds since 1970, or a timestamp as text; default: now.
    """
    if scope is None:
        scope = current()
        if not scope.ready:
            scope = acting_scope()
    if scope.suppressed:
        next(buffer.drops["suppressed"])
        return
    request = None
    if isinstance(scope, RequestView):  # nobody is known yet
        if template.user_id is None:
            request = scope.actor.request
        else:
            scope = scope.known(asking=False)
    if scope.long or template.size:
        extras = _charged(template, scope, extras)
    record = (template, scope, time_ns() if moment is None else moment, extras)
    if request is not None:
        hold(record, request)
        return
    if len(buffer.records) < buffer.append_limit:
        buffer.records.append(record)
    else:
        buffer.on_slow_path(record)


def _charged(template: EventTemplate, scope: Scope, extras: Extras) -> MeteredDict:
    """Return the extras as a dict that keeps everything counted that waits because of this event."""
    values = template.by_name(extras)
    charges = [value.charge() for value in scope.long.values()]
    if template.size:
        charges.append(Charge(template.size))
    if isinstance(values, MeteredDict):
        charges += values.charges
    return MeteredDict(values, 0, tuple(charges))


def count_invalid(why: str) -> None:
    """Count an event that cannot be made from the given values, and warn once."""
    next(buffer.drops["invalid"])
    warn_once(("invalid", why), f"{why}. Counted as 'invalid'.")
