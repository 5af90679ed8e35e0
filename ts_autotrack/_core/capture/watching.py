"""Watched functions: tracked without a wrapper, on CPython 3.12 and newer.

`sys.monitoring` reports the return of a code object. So a tracked function gets a code object of its own, equal to the
original, and the callback appends the record. The function stays the application's own: its globals, defaults,
signature, frames, tracebacks and pickles are those of the original, because nothing is around it.

Not watched, but wrapped: functions that may end by `sys.exit(0)`, functions only marked as coroutine functions, and
everything but success without captured arguments.

The end of a generator is its return, or the exception that leaves its frame: `close()` raises `GeneratorExit` there.
Python reports such exceptions for all code only, at 50 to 100 ns for each function that an exception leaves. A step of
a plain generator costs nothing; the beginning and the end of a run cost 2 us more than those of a closure.

Not seen:

- Calls that a finalizer or a signal handler makes while the callback runs: Python reports no events there. A signal
  handler at 1 kHz lost 63 % of its tracked calls in a loop of nothing but tracked calls, 15 % around calls of 3 us, and
  2 % around calls of 30 us. Finalizers of garbage in cycles lost up to a half: the record of a call is an allocation,
  which may start the garbage collector.
- The end of a generator, if the garbage collector closes it inside a callback. The event comes late: when another
  generator of the function gets the address of its frame. Of 20,000 generators dropped in cycles, 0.5 % were not
  counted at the end of a loop of nothing else, and 0 % beside 10 to 1,000 other objects each.
- Generators begun while the library is off, whatever their end. Those in flight when it is turned off are counted.
- Calls at a debugger's prompt and inside trace functions, for the same reason.
- Calls of a copy that was pickled by value, and of a function whose `__code__` was replaced after the decoration.
- `SystemExit(0)` raised by a function that the watched function calls.
- Calls after another tool has taken the library's id, until the next function is decorated or the next batch is sent.

Functions that others make from the code of a watched function count as the watched function. Once the exit of frames by
exceptions is watched (see `Monitor.watch_unwinding`), an exception raised in the very last frame before the recursion
limit becomes a RecursionError: the callback has no frame.
"""

from __future__ import annotations

import sys
from functools import partial, update_wrapper
from time import time_ns
from types import FunctionType
from weakref import ref

from ts_autotrack._core.callables import WORK, inner_functions, kind_of, kind_of_code
from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import count_fault, finish_call, with_additions
from ts_autotrack._core.capture.following import (
    follow,
    follow_future,
    generator_rules,
    work_returned,
)
from ts_autotrack._core.capture.monitor import DISABLE, RETURN, START, YIELD, monitor, with_events
from ts_autotrack._core.capture.record import watched_templates
from ts_autotrack._core.capture.spans import tracing, when_tracing
from ts_autotrack._core.capture.stack import additions, current_frame, followed, watched_codes
from ts_autotrack._core.identity.scope import current
from ts_autotrack._core.responses import failed_response

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from ts_autotrack._core.callables import Kind
    from ts_autotrack._core.capture.call import CaptureRule


EXITS = {"exit", "Exit", "SystemExit"}
"""Names in functions that may end with exit status 0, which is success: an exception is no return."""

# By the id of the code: its hash would cover all of it.
_rules: dict[int, tuple[CaptureRule, ref[CodeType]]] = {}
_GENERATORS = {"generator", "async generator"}
_CLOSES_SILENTLY = 0x4
"""Bit in the argument of the instruction RESUME after a `yield` outside of every `try`."""
_records = buffer.records
_append = buffer.records.append
_suppressed = buffer.drops["suppressed"]
now = time_ns
"""The clock of captures. While tracing, it also reads the span."""
_works = monitor.works


def watch(function: FunctionType, kind: Kind, rule: CaptureRule, *, in_place: bool = False) -> FunctionType | None:
    """Return `function` watched; None if the function needs a wrapper: for a second feature, for example.

    A function that is just being defined is watched in place. A function that already has its name is copied: other
    callers of the original are not counted.

    Args:
        function: The function.
        kind: Its kind.
        rule: Instructions for its calls.
        in_place: True to watch the function itself in any case, for all callers that hold it.
    """
    if not _may_be_watched(function, kind) or id(function.__code__) in _rules or not monitor.ready():
        return None
    may_be_shared = _references(function) > _references(_alone)  # before a variable refers to the code
    code = function.__code__
    if may_be_shared or not in_place:
        code = code.replace()  # the wrapper code of a decorator is shared by all that it decorates
    events = RETURN
    if kind in _GENERATORS:
        code, events = _with_loud_close(code), START | RETURN
        if kind == "async generator":
            events |= YIELD
        generator_rules[id(code)] = rule
        monitor.expect_work(code)
        monitor.watch_unwinding()
    number = id(code)
    _rules[number] = rule, ref(code, partial(_forget, number))
    watched_templates[number] = rule.template
    watched_codes.add(number)
    monitor.watch(code, events)
    if not in_place and _has_its_name(function):
        return copied(function, code)
    if code is not function.__code__:  # a call of a function whose code was replaced takes 10 ns more
        function.__code__ = code
    return function


def _references(function: FunctionType) -> int:
    """Return the references to the code of a function: of other functions, of the module's code, of running calls."""
    return sys.getrefcount(function.__code__)


_alone = FunctionType(_references.__code__.replace(), {})
"""A function whose code belongs to no other function, and to no code of a module."""


def _forget(number: int, _: object) -> None:
    """Forget a code object that is gone."""
    del _rules[number], watched_templates[number]
    generator_rules.pop(number, None)
    watched_codes.discard(number)
    monitor.forget(number)


def _may_be_watched(function: FunctionType, kind: Kind) -> bool:
    """Return True unless only a wrapper sees how the calls of a function end."""
    if kind in _GENERATORS:  # all of their ends are seen
        return True
    if kind == "generator coroutine" or not EXITS.isdisjoint(function.__code__.co_names):
        return False
    if not function.__dict__:
        return True
    is_marked = any(str(name).startswith("_is_coroutine") for name in function.__dict__)  # Django's views, for example
    return not is_marked and (
        kind != "function" or all(kind_of(inner) == "function" for inner in inner_functions(function))
    )


def _with_loud_close(code: CodeType) -> CodeType:
    """Return the code of a generator without the hint by which Python 3.13 closes the generator and reports nothing.

    The hint says that no handler of the generator could see the `GeneratorExit`.
    """
    if sys.version_info < (3, 13):
        return code
    from opcode import opmap

    instructions = bytearray(code.co_code)
    for index in range(0, len(instructions), 2):
        if instructions[index] == opmap["RESUME"]:
            instructions[index + 1] &= ~_CLOSES_SILENTLY
    return code.replace(co_code=bytes(instructions))


def _has_its_name(function: FunctionType) -> bool:
    """Return True if the name of a function leads to it already: it is not just being defined."""
    try:
        found: Any = sys.modules.get(function.__module__)
        for part in function.__qualname__.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        # A method may lie in its class as a classmethod, staticmethod or property.
        inside = [getattr(found, name, None) for name in ("__func__", "fget", "__wrapped__")]
    except Exception:  # noqa: BLE001 - a module or an attribute may be any object of the application
        return False
    return any(function is candidate for candidate in (found, *inside))


def copied(function: FunctionType, code: CodeType) -> FunctionType:
    """Return a copy of a function with another code object."""
    copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    update_wrapper(copy, function)
    copy.__dict__.pop("__wrapped__")
    copy.__dict__.update(function.__dict__)
    copy.__kwdefaults__ = function.__kwdefaults__ and {**function.__kwdefaults__}
    return copy


def _returned(code: CodeType, _: int, result: object) -> object:
    """Record a call of a watched function. Called by `sys.monitoring`; an exception would reach the application."""
    try:
        scope = current()
        if scope.ready and len(_records) < buffer.append_limit and type(result) not in WORK and not additions:
            if not _works:
                _append((code, scope, now(), None))
                return None
            if id(code) not in _works:
                records = _records
                # 75 ns more than a call, which could run the garbage collector here: generators would end unseen.
                records += ((code, scope, now(), None),)
                return None
        if scope.drop_suppressed and buffer.append_limit and not (additions or followed) and type(result) not in WORK:
            next(_suppressed)
            return None
        may_rest = not followed or id(code) not in _works  # else a generator in flight would end unseen
        if not buffer.append_limit and additions:
            additions.pop(id(current_frame(1)), None)
        if may_rest and not buffer.append_limit:
            return DISABLE  # without a call since the test: another thread could reopen the buffer in between
        with_events(_returned_otherwise, (code, result, current_frame(1)))
    except RecursionError:
        for _ in buffer.drops["fault"]:  # advances the counter without a call: the stack may have no space for a call
            break
    except Exception as error:  # noqa: BLE001 - the barrier
        count_fault("recording a call", error)
    return None


def _returned_otherwise(code: CodeType, result: Any, frame: FrameType) -> None:
    """Record a call that the callback does not append directly."""
    rule, _ = _rules.get(id(code), (None, None))
    if rule is not None and id(code) not in generator_rules:
        _finish(code, rule, result, frame)
    if followed:
        work_returned(result, frame)
    if additions:  # of a generator begun while the library was off
        additions.pop(id(frame), None)


def _finish(code: CodeType, rule: CaptureRule, result: Any, frame: FrameType) -> None:
    """Record a call of a watched function, now or at the end of the work that it returned."""
    kind = WORK.get(type(result))
    extras = with_additions(rule, None, frame) if additions else None
    if kind == "response":
        finish_call(rule, extras, None, result, failed_response(result, code))
    elif kind is None or kind_of_code(code) != "function":
        finish_call(rule, extras, None, result)
    elif kind == "future":
        follow_future(rule, extras, None, result)
    elif not follow(rule, extras, result, kind):
        finish_call(rule, extras, None, result)


monitor.set_callback(RETURN, _returned)
buffer.on_reopen = monitor.restart
when_tracing(globals(), now=tracing.now)
