"""From a finished call to a record: what a site knows, what the call adds, and who acts."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from time import time_ns

from ts_autotrack._core.capture.buffer import CLOSED, buffer
from ts_autotrack._core.counters import MeteredDict
from ts_autotrack._core.diagnostics import fault, warn_once
from ts_autotrack._core.identity.scope import current
from ts_autotrack._core.snapshot import light, snapshot

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import CodeType, FrameType
    from typing import Any, TypeAlias

    from ts_autotrack._core.capture.record import EventTemplate, Extras
    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import FinishedCall

    Argument: TypeAlias = tuple[str, int, tuple[object, ...]]


class Rule:
    """What a tracked call is to leave behind; made once, at decoration.

    Attributes:
        site: What all its events have in common.
        arguments: The arguments to copy: name, index among the positional ones or -1, and a tuple with the default,
            empty if there is none.
        on: Which outcomes make an event.
        describe: Makes properties of the finished call.
        plain: Whether a successful call needs nothing but the site, so that the wrapper appends by itself.
    """

    __slots__ = ("arguments", "describe", "on", "plain", "site")

    def __init__(
        self,
        site: EventTemplate,
        arguments: tuple[Argument, ...],
        on: str,
        describe: Callable[[FinishedCall], Mapping[str, object]] | None,
    ) -> None:
        self.site = site
        self.arguments = arguments
        self.on = on
        self.describe = describe
        self.plain = on == "success" and describe is None

    def bound(self) -> Rule:
        """Return the rule for the same callable with its first argument bound."""
        shifted = tuple((name, position - 1, default) for name, position, default in self.arguments)
        return Rule(self.site, shifted, self.on, self.describe)

    def capture(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Extras:
        """Return a snapshot of the arguments to copy, as they are before the call. Never raises."""
        try:
            values: list[object] = []
            for name, position, default in self.arguments:
                if 0 <= position < len(args):
                    values.append(args[position])
                elif name in kwargs:
                    values.append(kwargs[name])
                elif default:
                    values.append(default[0])
                else:  # left out of a `**kwargs`, or the call is about to fail
                    return self._capture_some(args, kwargs)
            return light(values) or self._capture_some(args, kwargs)
        except RecursionError:  # no room for another call, not even one that reports
            pass
        except Exception as error:  # pragma: no cover - the barrier: nothing known raises here
            fault(f"capturing arguments of {self.site.where}", error)
        return None

    def _capture_some(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        values: dict[str, object] = {}
        for name, position, default in self.arguments:
            if 0 <= position < len(args):
                values[name] = args[position]
            elif name in kwargs:
                values[name] = kwargs[name]
            elif default:
                values[name] = default[0]
        return snapshot(values)


def finish(
    rule: Rule,
    extras: Extras,
    call: tuple[tuple[Any, ...], dict[str, Any]] | None,
    result: object = None,
    error: BaseException | None = None,
    scope: Scope | None = None,
) -> None:
    """Record a finished call that is not plain, or that cannot simply be appended. Never raises.

    Args:
        rule: What the call is to leave behind.
        extras: The arguments copied.
        call: Its arguments, if the rule describes finished calls.
        result: What it returned.
        error: What it raised.
        scope: Who acted when it began, where the end may come in somebody else's context.
    """
    try:
        counts = rule.on == "always" or (rule.on == "success") is (error is None)
        if buffer.append_limit == CLOSED:
            if counts:
                next(buffer.closed_drops)
        elif counts:
            if not rule.plain:
                extras = _completed(rule, extras, call, result, error)
            if additions and (added := additions.pop(sys._getframe(1), None)):
                extras = joined(rule.site.by_name(extras), added)
            record(rule.site, extras, scope if scope is not None and scope.user_id else None)
    except RecursionError:
        for _ in buffer.drops["fault"]:  # counts one without a call, for which there may be no room
            break
    except Exception as ours:  # pragma: no cover - the barrier: nothing known raises here
        next(buffer.drops["fault"])
        fault(f"recording a call of {rule.site.where}", ours)
    finally:
        if additions:  # of a call that makes no event
            additions.pop(sys._getframe(1), None)


def _completed(
    rule: Rule,
    extras: Extras,
    call: tuple[tuple[Any, ...], dict[str, Any]] | None,
    result: object,
    error: BaseException | None,
) -> dict[str, Any]:
    """Return the arguments copied, by their names, with the outcome and the description that the rule asks for."""
    properties = rule.site.by_name(extras)
    if rule.on == "always":
        properties = joined(properties, {"outcome": "success" if error is None else "error"})
    if rule.describe is not None and call is not None:
        properties = joined(properties, _described(rule, rule.describe, call, result, error))
    return properties


def joined(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of both; the second's win. What is long stays counted."""
    if not first:
        return second
    size = sum(part.size for part in (first, second) if isinstance(part, MeteredDict))
    return MeteredDict({**first, **second}, size) if size else {**first, **second}


def _described(
    rule: Rule,
    describe: Callable[[FinishedCall], Mapping[str, object]],
    call: tuple[tuple[Any, ...], dict[str, Any]],
    result: object,
    error: BaseException | None,
) -> dict[str, object]:
    from ts_autotrack.typing import FinishedCall

    try:
        return snapshot(describe(FinishedCall(*call, result, error)))
    except Exception as fault_of_theirs:
        warn_once(
            ("describe", rule.site.where),
            f"the properties= callable of {rule.site.where} raised {type(fault_of_theirs).__name__}; its events are "
            "sent without what it returns",
        )
        return {}


def record(site: EventTemplate, extras: Extras, scope: Scope | None = None, moment: int | str | None = None) -> None:
    """Hand an event over.

    Args:
        site: Where it comes from.
        extras: Its own properties or traits, a snapshot already.
        scope: Who acts; the current scope by default.
        moment: When, in nanoseconds since 1970 or as the contract's text; now by default.
    """
    if scope is None:
        scope = current()
    if not scope.ready:
        scope = scope.resolve()
        if scope.suppressed:
            next(buffer.drops["suppressed"])
            return
    event = (site, scope, time_ns() if moment is None else moment, extras)
    if len(buffer.records) < buffer.append_limit:
        buffer.records.append(event)
    else:
        buffer.on_slow_path(event)


def count_invalid(why: str) -> None:
    """Count an event that cannot be made of what was given, and explain it once."""
    next(buffer.drops["invalid"])
    warn_once(("invalid", why), f"{why}. Counted as 'invalid'.")


class Use:
    """A `with track_feature(...)` block that is open.

    Example:
        >>> from ts_autotrack import track_feature
        >>> with track_feature("export") as use:
        ...     use.set(rows=3)
    """

    __slots__ = ("_begun", "_call", "_finished", "_outer", "_properties", "_rule", "owner")

    def __init__(self, rule: Rule, owner: object, call: FrameType | None) -> None:
        self._rule = rule
        self._properties: dict[str, Any] = {}
        self._finished = False
        self._call = call
        self._outer = open_use()
        self._begun = current()
        self.owner = owner

    def set(self, **values: object) -> None:
        """Attach properties to the block's event.

        Args:
            **values: Property names to values. A snapshot is taken. Later values win.
        """
        if self._finished:
            where = place(sys._getframe(1))
            warn_once(("late", where), f"{where}: use.set() after the block ended has no effect; call it inside")
            return
        self._properties = joined(self._properties, snapshot(values))

    def enter(self) -> None:
        """Make this the innermost open block of the context."""
        _open_use.set(self)

    def leave(self, error: BaseException | None) -> None:
        """End the block and record its event; a generator that its consumer closed early has been used."""
        self._finished = True
        if _open_use.get() is self:
            outer = self._outer
            while outer is not None and outer._finished:
                outer = outer._outer
            _open_use.set(outer)
        self._call = None  # the frame, and all that it holds
        if isinstance(error, GeneratorExit):  # the generator around it was closed, perhaps in somebody else's context
            finish(self._rule, self._properties, ((), {}), scope=self._begun)
        else:
            finish(self._rule, self._properties, ((), {}), None, error)

    def holds(self, call: FrameType | None) -> bool:
        """Whether code whose innermost tracked call is `call` is directly inside this block."""
        return not self._finished and (call is None or call is self._call)


additions: dict[FrameType, dict[str, Any]] = {}
"""What `add_properties` attached to decorated calls in flight, by the frame of their wrapper.

A contextvar set and reset around each call would cost twice as much as all the rest of the wrapper (200 ns against
140); so the few who attach properties look for the call on the stack instead.
"""
call_codes: set[CodeType] = set()
"""The code of the wrappers, by which a frame is known to be one."""
_open_use: ContextVar[Use | None] = ContextVar("ts_autotrack_use", default=None)


def open_use() -> Use | None:
    """Return the innermost block that is open in this context."""
    use = _open_use.get()
    while use is not None and use._finished:
        use = use._outer
    return use


def innermost_call(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the innermost tracked call that `frame` runs in, awaiting callers included."""
    while frame is not None and frame.f_code not in call_codes:
        frame = frame.f_back
    return frame


def add_properties(**values: object) -> None:
    """Attach properties to the event in flight: the innermost tracked call or block that this code runs in.

    Awaited coroutines run in the call that awaits them. A task or a thread started by a decorated call does not: open
    a block there, or hand over what `with track_feature(...) as use` gives and call `use.set`.

    Args:
        **values: Property names to values. A snapshot is taken; they win over the decorator's properties. Outside of
            every tracked call nothing is attached, and a warning names the place once.

    Example:
        >>> from ts_autotrack import add_properties, track_feature
        >>> @track_feature("export")
        ... def export():
        ...     add_properties(rows=3)
        >>> export()
    """
    caller = sys._getframe(1)
    call, use = innermost_call(caller), open_use()
    if use is not None and use.holds(call):
        use.set(**values)
    elif call is not None:
        additions[call] = joined(additions.get(call), snapshot(values))
    else:
        where = place(caller)
        warn_once(
            ("add_properties", where),
            f"{where}: add_properties() outside of every tracked call has no effect. Decorate the function that it "
            "belongs to, or open a `with track_feature(...)` block around it.",
        )


def place(frame: FrameType) -> str:
    """Return where in the application a frame is, for messages."""
    return f"{frame.f_globals.get('__name__', '?')}, line {frame.f_lineno}"
