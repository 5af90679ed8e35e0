"""Work whose end is watched: generators of watched generator functions, and work that a watched plain function returns.

The event of such a call belongs to the end of the work. The frame tells this work from other work with the same code.
"""

from __future__ import annotations

from functools import partial
from weakref import ref

from ts_autotrack._core.callables import kind_of_code
from ts_autotrack._core.capture.binding import bindings, own_scope
from ts_autotrack._core.capture.buffer import CLOSED, buffer
from ts_autotrack._core.capture.call import begin_scope, count_fault, finish_call, merge_extras
from ts_autotrack._core.capture.monitor import DISABLE, START, UNWIND, YIELD, monitor, with_events
from ts_autotrack._core.capture.stack import additions, current_frame, followed, take_additions
from ts_autotrack._core.outcomes import cancelled_error, is_clean_exit, is_early_end

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from ts_autotrack._core.callables import Kind
    from ts_autotrack._core.capture.call import Arguments, CaptureRule
    from ts_autotrack._core.capture.record import Extras
    from ts_autotrack._core.capture.spans import Beginning
    from ts_autotrack._core.identity.scope import Scope


def follow_future(rule: CaptureRule, extras: Extras, held: Arguments | None, future: Any) -> None:
    """Record the call when a future of asyncio or of an executor is done."""
    done = partial(_future_done, rule, extras, held, begin_scope())
    if future.done():  # asyncio would call back later; a closed loop raises
        done(future)
    else:
        future.add_done_callback(done)


def _future_done(
    rule: CaptureRule, extras: Extras, held: Arguments | None, begun: Scope | Beginning, future: Any
) -> None:
    # `exception()` would tell asyncio that the application has seen the exception.
    error = cancelled_error(future) if future.cancelled() else future._exception  # noqa: SLF001
    finish_call(rule, extras, held, None if error else future.result(), error, begun)


def follow(rule: CaptureRule, extras: Extras, work: Any, kind: Kind) -> bool:
    """Record a call at the end of the work that it returned.

    Return False if the call ends now: the work has ended, or an earlier call of the function returned the same work.
    """
    frame = getattr(work, _PREFIXES[kind] + "_frame")
    if frame is None:
        return False
    known = followed.get(id(frame))
    if known is not None and not (known.is_of(frame) and (not known.watched or _has_begun(work, kind))):
        known.end_unseen()
        known = None
    if known is None:
        known = followed[id(frame)] = Followed(work, kind, frame)
        if kind != "coroutine":
            known.scope = begin_scope()
    elif any(of is rule for of, _ in known.calls):
        return False
    known.calls.append((rule, extras))
    return True


def _has_begun(work: Any, kind: Kind) -> bool:
    """Return True for a generator after its first step: a generator that `started` has seen."""
    prefix = _PREFIXES[kind]
    return bool(getattr(work, prefix + "_suspended") or getattr(work, prefix + "_running"))


class Followed:
    """Coroutine or generator in flight.

    Attributes:
        calls: Rule of each function, and the properties attached to its call, innermost first.
        kind: Kind of the work.
        scope: Scope at the call of a generator, which may end in another context; None for a coroutine.
        used: True once a generator has yielded an item; from the first step on for a watched plain generator.
        watched: True for a generator of a watched function, whose code reports all of its ends.
    """

    __slots__ = ("_code", "_frame_id", "_work", "calls", "kind", "scope", "used", "watched")

    def __init__(self, work: Any, kind: Kind, frame: FrameType) -> None:
        self.calls: list[tuple[CaptureRule, Extras]] = []
        self.kind = kind
        self.scope: Scope | Beginning | None = None
        self.watched = work is None
        self.used = self.watched and kind == "generator"  # nothing but its own code ends it before the first yield
        self._code: CodeType = frame.f_code
        self._frame_id = id(frame)
        if work is not None:
            self._work = ref(work, self.end_unseen)
            monitor.watch_unwinding()
            monitor.follow(self._code, self._frame_id)

    def is_of(self, frame: FrameType) -> bool:
        """Return True if `frame`, which has the id of this work's frame, is the frame of this work."""
        if self.watched:
            return frame.f_code is self._code
        work = self._work()
        return work is not None and getattr(work, _PREFIXES[self.kind] + "_frame") is frame

    def ends_well(self, error: BaseException) -> bool:
        """Return True if an exception that leaves the frame is no failure: see `wrappers`, which judge the same way."""
        if self.used and (isinstance(error, GeneratorExit) if self.kind == "generator" else is_early_end(error)):
            return True
        return is_clean_exit(error)

    def finish(self, result: object = None) -> None:
        """Record the calls that returned this work."""
        added = take_additions(self._frame_id, self._code) if additions else None
        scope = self.scope if self.scope is None else own_scope(self.scope, self._frame_id, self._code)
        self.forget()
        for rule, extras in self.calls:
            given = merge_extras(rule.template.by_name(extras), added) if added else extras
            finish_call(rule, given, None, result, None, scope)
            added = None  # properties from `add_properties` go to the innermost function

    def forget(self) -> None:
        """Follow no more."""
        if followed.get(self._frame_id) is self:
            del followed[self._frame_id]
            additions.pop(self._frame_id, None)
            bindings.pop(self._frame_id, None)
            if not self.watched:
                monitor.unfollow(self._code, self._frame_id)

    def end_unseen(self, _: object = None) -> None:
        """Record the calls if the work was used: Python does not report each end of a generator."""
        if followed.get(self._frame_id) is self:
            if self.used:
                self.finish()
            else:
                self.forget()


def started(code: CodeType, _: int) -> object:
    """Note that a call begins. Called by `sys.monitoring` for generators, and for functions that add properties."""
    if buffer.append_limit == CLOSED:
        return DISABLE
    try:
        if id(code) in generator_rules:  # the new objects may start the garbage collector, which closes generators
            with_events(_begin, (code,))
        elif additions:  # of an earlier call with a frame at the same address, whose end Python did not report
            additions.pop(id(current_frame(1)), None)
    except RecursionError:
        pass
    except Exception as error:  # noqa: BLE001 - the barrier
        count_fault("following a call", error)
    return None


def _begin(code: CodeType) -> None:
    """Follow a generator of a watched function from its first step on."""
    frame = current_frame(2)
    work = followed.get(id(frame))
    if work is not None and (work.watched or not work.is_of(frame)):  # an earlier generator at the same address
        work.end_unseen()
        work = None
    additions.pop(id(frame), None)
    if work is None:
        work = followed[id(frame)] = Followed(None, kind_of_code(code), frame)
    work.calls.insert(0, (generator_rules[id(code)], None))  # before the plain functions that returned the generator
    work.scope = work.scope or begin_scope()


def work_returned(result: object, frame: FrameType) -> None:
    """Record the calls whose work has ended."""
    work = followed.get(id(frame))
    if work is not None and work.is_of(frame):
        work.finish(result)


def yielded(_: CodeType, __: int, item: object) -> None:
    """Note that a generator was used. Called by `sys.monitoring` for each yield, but of watched plain generators."""
    try:
        work = followed.get(id(current_frame(1)))
        if work is None or work.used or work.kind == "coroutine":
            return
        if work.is_of(current_frame(1)):
            # An async generator yields at each await, too; Python wraps its items.
            work.used = work.kind == "generator" or type(item).__name__ == "async_generator_wrapped_value"
    except RecursionError:
        pass


def unwound(_: CodeType, __: int, error: BaseException) -> None:
    """Forget a call that an exception leaves. Called by `sys.monitoring` for each function that an exception leaves."""
    try:
        work = followed.get(id(current_frame(1))) if followed else None
        if work is not None and work.is_of(current_frame(1)):
            if work.ends_well(error):
                with_events(work.finish, ())
            else:
                work.forget()
        if additions:
            additions.pop(id(current_frame(1)), None)
    except RecursionError:
        pass
    except Exception as ours:  # noqa: BLE001 - the barrier
        count_fault("following a call", ours)


_PREFIXES = {"coroutine": "cr", "generator": "gi", "async generator": "ag"}

generator_rules: dict[int, CaptureRule] = {}
"""Rules of watched generator functions, by the id of their code."""

monitor.set_callback(START, started)
monitor.set_callback(YIELD, yielded)
monitor.set_callback(UNWIND, unwound)
