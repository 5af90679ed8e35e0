"""Work that a plain function returns: its event belongs to the end of the work.

A wrapper wraps the work (see `wrappers`). A watched function has no wrapper, so the code of the work is watched, too;
the frame tells this work from other work with the same code.
"""

from __future__ import annotations

from functools import partial
from weakref import ref

from ts_autotrack._core.capture.call import begin_scope, finish_call
from ts_autotrack._core.capture.monitor import RETURN, UNWIND, YIELD, monitor
from ts_autotrack._core.capture.stack import additions, current_frame, followed, watched_codes
from ts_autotrack._core.outcomes import cancelled_error, is_early_end

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
    done = partial(_future_done, rule, extras, held, begin_scope())
    if future.done():  # asyncio would call back later; a closed loop raises
        done(future)
    else:
        future.add_done_callback(done)


def _future_done(rule: CaptureRule, extras: Extras, held: Arguments | None, scope: Scope, future: Any) -> None:
    # `exception()` would tell asyncio that the application has seen the exception.
    error = cancelled_error(future) if future.cancelled() else future._exception  # noqa: SLF001
    finish_call(rule, extras, held, None if error else future.result(), error, scope)


class Followed:
    """Coroutine or generator that a watched function returned.

    Attributes:
        rules: Instructions for the function, innermost first.
        extras: Properties attached to the call of the function.
        kind: Kind of the work.
        scope: Scope at the first step of a generator, which may end in another context.
        used: True once a generator has yielded an item.
    """

    __slots__ = ("_code", "_work", "extras", "kind", "rules", "scope", "used")

    def __init__(self, rules: tuple[CaptureRule, ...], extras: Extras, work: Any, kind: Kind) -> None:
        self.rules = rules
        self.extras = extras
        self.kind = kind
        self.scope: Scope | None = None
        self.used = False
        self._code: CodeType = getattr(work, _PREFIXES[kind] + "_code")
        self._work = ref(work, self._collected)
        followed.setdefault(id(self._code), []).append(self)
        monitor.watch(self._code, RETURN | YIELD, ref(self._code))
        monitor.watch_unwinding()

    def is_of(self, frame: FrameType) -> bool:
        """Return True if `frame` is the frame of this work."""
        work = self._work()
        return work is not None and getattr(work, _PREFIXES[self.kind] + "_frame") is frame

    def finish(self, result: object = None, frame: FrameType | None = None) -> None:
        """Record the call of the function."""
        self.forget()
        for rule in self.rules:
            finish_call(rule, self.extras, None, result, None, self.scope, frame)

    def forget(self) -> None:
        """Follow no more."""
        others = followed[id(self._code)]
        others.remove(self)
        if not others:
            del followed[id(self._code)]
            if id(self._code) in watched_codes:
                monitor.watch(self._code, RETURN, ref(self._code))
            else:
                monitor.unwatch(self._code)

    def _collected(self, _: object) -> None:
        """Take a generator that was closed without a trace, as Python 3.13 does, for used."""
        if self in followed.get(id(self._code), ()):
            if self.used:
                self.finish()
            else:
                self.forget()


def returned(code: CodeType, result: object, frame: FrameType) -> None:
    """Record the call whose work has ended."""
    work = _find(code, frame)
    if work is not None:
        work.finish(result, frame)


def yielded(code: CodeType, _: int, item: object) -> None:
    """Note that a generator was used. Called by `sys.monitoring` for each yield."""
    work = _find(code, current_frame(1))
    if work is not None and not work.used and work.kind != "coroutine":
        work.scope = work.scope or begin_scope()
        # An async generator yields at each await, too; Python wraps its items.
        work.used = work.kind == "generator" or type(item).__name__ == "async_generator_wrapped_value"


def unwound(code: CodeType, _: int, error: BaseException) -> None:
    """Forget a call that an exception leaves. Called by `sys.monitoring` for each function that an exception leaves."""
    if additions:
        additions.pop(id(current_frame(1)), None)
    if followed and (work := _find(code, current_frame(1))) is not None:
        if work.used and is_early_end(error):
            work.finish()
        else:
            work.forget()


def _find(code: CodeType, frame: FrameType) -> Followed | None:
    return next((work for work in followed.get(id(code), ()) if work.is_of(frame)), None)


_PREFIXES = {"coroutine": "cr", "generator": "gi", "async generator": "ag"}

monitor.call(YIELD, yielded)
monitor.call(UNWIND, unwound)
