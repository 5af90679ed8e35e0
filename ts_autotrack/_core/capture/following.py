"""Work that a plain function returns: its event belongs to the end of the work.

A wrapper wraps the work (see `wrappers`). A watched function has no wrapper, so the code of the work is watched, too;
the frame tells this work from other work with the same code.
"""

from __future__ import annotations

from functools import partial
from weakref import ref

from ts_autotrack._core.capture.call import begin_scope, count_fault, finish_call, merge_extras
from ts_autotrack._core.capture.monitor import UNWIND, YIELD, monitor, with_events
from ts_autotrack._core.capture.stack import additions, current_frame, followed, take_additions
from ts_autotrack._core.outcomes import is_early_end

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from ts_autotrack._core.callables import Kind
    from ts_autotrack._core.capture.call import Arguments, CaptureRule
    from ts_autotrack._core.capture.record import Extras
    from ts_autotrack._core.identity.scope import Scope


def follow_future(rule: CaptureRule, extras: Extras, held: Arguments | None, future: Any) -> None:
    """Record the call when a future of asyncio or of an executor is done."""
    future.add_done_callback(partial(_future_done, rule, extras, held, begin_scope()))


def _future_done(rule: CaptureRule, extras: Extras, held: Arguments | None, scope: Scope, future: Any) -> None:
    if future.cancelled():
        return
    error = future._exception  # noqa: SLF001 - `exception()` would tell asyncio that the application has seen it
    finish_call(rule, extras, held, None if error else future.result(), error, scope)


def follow(rules: tuple[CaptureRule, ...], extras: Extras, work: Any, kind: Kind) -> bool:
    """Record a call at the end of the work that it returned.

    Return False if the call ends now: the work has ended, or an earlier call of the function returned the same work.
    """
    frame = getattr(work, _PREFIXES[kind] + "_frame")
    if frame is None:
        return False
    known = followed.get(id(frame))
    if known is not None and not known.is_of(frame):
        known.end_unseen()
        known = None
    if known is None:
        known = followed[id(frame)] = Followed(work, kind, frame)
    elif any(of is rules for of, _ in known.calls):
        return False
    known.calls.append((rules, extras))
    return True


class Followed:
    """Coroutine or generator that watched functions returned.

    Attributes:
        calls: Rules of the functions and properties attached to their calls, innermost first.
        kind: Kind of the work.
        scope: Scope at the first step of a generator, which may end in another context.
        used: True once a generator has yielded an item.
    """

    __slots__ = ("_code", "_frame_id", "_work", "calls", "kind", "scope", "used")

    def __init__(self, work: Any, kind: Kind, frame: FrameType) -> None:
        self.calls: list[tuple[tuple[CaptureRule, ...], Extras]] = []
        self.kind = kind
        self.scope: Scope | None = None
        self.used = False
        self._code: CodeType = frame.f_code
        self._frame_id = id(frame)
        self._work = ref(work, self.end_unseen)
        monitor.watch_unwinding()
        monitor.follow(self._code, self._frame_id)

    def is_of(self, frame: FrameType) -> bool:
        """Return True if `frame` is the frame of this work."""
        work = self._work()
        return work is not None and getattr(work, _PREFIXES[self.kind] + "_frame") is frame

    def finish(self, result: object = None) -> None:
        """Record the calls that returned this work."""
        added = take_additions(self._frame_id, self._code)
        self.forget()
        for rules, extras in self.calls:
            given = merge_extras(rules[0].template.by_name(extras), added) if added else extras
            for rule in rules:
                finish_call(rule, given, None, result, None, self.scope)
                added = given = None  # properties from `add_properties` go to the innermost feature

    def forget(self) -> None:
        """Follow no more."""
        if followed.get(self._frame_id) is self:
            del followed[self._frame_id]
            additions.pop(self._frame_id, None)
            monitor.unfollow(self._code, self._frame_id)

    def end_unseen(self, _: object = None) -> None:
        """Record the calls if the work was used: Python 3.13 closes a generator without an event."""
        if followed.get(self._frame_id) is self:
            if self.used:
                self.finish()
            else:
                self.forget()


def work_returned(result: object, frame: FrameType) -> None:
    """Record the calls whose work has ended."""
    work = _find(frame)
    if work is not None:
        work.finish(result)


def yielded(_: CodeType, __: int, item: object) -> None:
    """Note that a generator was used. Called by `sys.monitoring` for each yield."""
    try:
        work = _find(current_frame(1))
        if work is not None and not work.used and work.kind != "coroutine":
            work.scope = work.scope or begin_scope()
            # An async generator yields at each await, too; Python wraps its items.
            work.used = work.kind == "generator" or type(item).__name__ == "async_generator_wrapped_value"
    except RecursionError:
        pass


def unwound(_: CodeType, __: int, error: BaseException) -> None:
    """Forget a call that an exception leaves. Called by `sys.monitoring` for each function that an exception leaves."""
    try:
        if followed and (work := _find(current_frame(1))) is not None:
            if work.used and is_early_end(error):
                with_events(work.finish, ())
            else:
                work.forget()
        if additions:
            additions.pop(id(current_frame(1)), None)
    except RecursionError:
        pass
    except Exception as ours:  # noqa: BLE001 - the barrier
        count_fault("following a call", ours)


def _find(frame: FrameType) -> Followed | None:
    work: Followed | None = followed.get(id(frame))
    return work if work is not None and work.is_of(frame) else None


_PREFIXES = {"coroutine": "cr", "generator": "gi", "async generator": "ag"}

monitor.call(YIELD, yielded)
monitor.call(UNWIND, unwound)
