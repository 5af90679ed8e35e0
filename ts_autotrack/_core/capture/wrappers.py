"""The wrappers of track_feature. Their code runs in every tracked call, so the direct path is written out.

The templates become closures with the function's own argument list (see `closures`); in a template `ts` is this module,
and `py` the module `builtins`. A successful plain call appends its record directly; `finish_call` handles all other
cases. Each wrapper removes its own frame from tracebacks, and releases the arguments before a suspension, so that a
program sees no difference.
"""

from __future__ import annotations

import builtins
import sys
from time import time_ns
from types import FunctionType

from ts_autotrack._core.callables import (  # noqa: F401 - for the templates
    CO_ITERABLE_COROUTINE,
    WORK,
    ReturnedWork,
    drop_frame,
    first_step,
    is_held_elsewhere,
    kind_of_result,
)
from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import begin_scope, count_fault, finish_call, with_additions
from ts_autotrack._core.capture.following import follow_future
from ts_autotrack._core.capture.spans import tracing, unready, when_tracing
from ts_autotrack._core.capture.stack import FILENAME, additions, current_frame
from ts_autotrack._core.closures import closure, parameters_of
from ts_autotrack._core.identity.scope import current
from ts_autotrack._core.outcomes import is_early_end  # noqa: F401 - for the templates
from ts_autotrack._core.responses import failed_response

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ts_autotrack._core.callables import Kind
    from ts_autotrack._core.capture.call import Arguments, CaptureRule
    from ts_autotrack._core.capture.record import Extras

records = buffer.records
append = buffer.records.append
suppressed = buffer.drops["suppressed"]
now = time_ns
"""The clock of calls that end in their own context. While tracing, it also reads the span."""
start = current
"""Returns the scope by which a generator may append its event at the end. While tracing, no generator may."""

_FUNCTION = """
def call({parameters}):
    BEGIN
    try:
        ts_result = ts_function({arguments})
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        ts.finish_call(ts_rule, EXTRAS, HELD, None, ts_error)
        raise
    FINISH
    return ts_result
"""
_COROUTINE = """
async def call({parameters}):
    BEGIN
    try:
        ts_coroutine = ts_function({arguments})
        {forget}
        ts_result = await ts_coroutine
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        ts.finish_call(ts_rule, EXTRAS, HELD, None, ts_error, START)
        raise
    FINISH
    return ts_result
"""
_GENERATOR = """
def call({parameters}):
    BEGIN
    ts_start = ts.start()
    try:
        if not ts_start.ready:
            ts_start = ts.begin_scope()
        ts_generator = ts_function({arguments})
        {forget}
        ts_items, ts_send, ts_throw = [py.next(ts_generator)], ts_generator.send, ts_generator.throw
        while True:
            try:
                ts_items.append((yield ts_items.pop()))
                ts_step = ts_send
            except py.BaseException as ts_thrown:
                ts.drop_frame(ts_thrown)
                ts_items.append(ts_thrown)
                ts_step = ts_throw
            ts_items.append(ts_step(ts_items.pop()))
    except py.StopIteration as ts_stop:
        ts_result = ts_stop.value
        EXHAUSTED
        return ts_result
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        ts_failure = None if py.isinstance(ts_error, py.GeneratorExit) else ts_error
        ts.finish_call(ts_rule, EXTRAS, HELD, None, ts_failure, ts_start)
        raise
"""
_ASYNC_GENERATOR = """
async def call({parameters}):
    BEGIN
    ts_start, ts_used = ts.begin_scope(), False
    try:
        ts_generator = ts_function({arguments})
        {forget}
        ts_step, ts_items = ts.first_step(ts_generator), []
        while True:
            try:
                ts_items.append(await ts_step)
            except py.StopAsyncIteration:
                break
            ts_step, ts_used = None, True
            try:
                ts_step = ts_generator.asend((yield ts_items.pop()))
            except py.BaseException as ts_thrown:
                if ts_generator.ag_frame is None:  # others have closed it
                    raise
                ts.drop_frame(ts_thrown)
                ts_step = ts_generator.athrow(ts_thrown)
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        ts_failure = None if ts_used and ts.is_early_end(ts_error) else ts_error
        ts.finish_call(ts_rule, EXTRAS, HELD, None, ts_failure, ts_start)
        raise
    ts.finish_call(ts_rule, EXTRAS, HELD, None, None, ts_start)
"""
# Yielded and sent objects stay in no variable while a generator is suspended: the consumer may want the memory back.
# A thrown exception is passed on outside of its handler: else it would be the context of later exceptions.
_TEMPLATES: dict[Kind, str] = {
    "function": _FUNCTION,
    "coroutine": _COROUTINE,
    "generator": _GENERATOR,
    "generator coroutine": _GENERATOR,
    "async generator": _ASYNC_GENERATOR,
}
_DIRECT = """
    try:
        ts_limit = ts.buffer.append_limit
        if ts.additions or py.type(ts_result) in ts.WORK:
            ts_result = ts.finish_function(ts_rule, EXTRAS, HELD, ts_result)
        elif not ts_limit:
            py.next(ts.buffer.closed_drops)
        else:
            ts_scope = ts.current()
            if ts_scope.ready and py.len(ts.records) < ts_limit:
                ts.append((ts_template, ts_scope, ts.now(), EXTRAS))
            elif ts_scope.drop_suppressed:
                py.next(ts.suppressed)
            else:
                ts.finish_call(ts_rule, EXTRAS, HELD, ts_result)
    except py.Exception as ts_fault:
        ts.count_fault("recording a call", ts_fault)
""".strip()
_EXHAUSTED = """
        try:
            if ts_start.ready and py.len(ts.records) < ts.buffer.append_limit and not ts.additions:
                ts.append((ts_template, ts_start, ts.time_ns(), EXTRAS))
            else:
                ts.finish_call(ts_rule, EXTRAS, HELD, ts_result, None, ts_start)
        except py.Exception as ts_fault:
            ts.count_fault("recording a call", ts_fault)
""".strip()
_FINISH_EXHAUSTED = "ts.finish_call(ts_rule, EXTRAS, HELD, ts_result, None, ts_start)"
_FINISH = "ts_result = ts.finish_function(ts_rule, EXTRAS, HELD, ts_result)"


def wrap_function(rule: CaptureRule, function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Return a closure of the given kind around `function` that records events by `rule`."""
    begin, extras = [], "None"
    captured = _own_arguments(rule, function)
    if rule.arguments:
        capture = "ts_rule.capture({captured})" if captured else "ts_rule.capture_given({names})"
        begin.append(f"ts_extras = {capture} if ts.buffer.append_limit else None")
        extras = "ts_extras"
    if rule.describe is not None:
        begin.append("ts_held = ({names})")
    held = "None" if rule.describe is None else "ts_held"
    return _made(rule, function, kind, begin, extras, held, captured)


def _own_arguments(rule: CaptureRule, function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the captured arguments if the closure can take each by its name; else it needs the arguments as given."""
    names = tuple(name for name, _, _ in rule.arguments)
    takes_all = type(function) is FunctionType and rule.describe is None and set(names) <= set(parameters_of(function))
    return names if takes_all else ()


def finish_function(rule: CaptureRule, extras: Extras, held: Arguments | None, result: Any) -> Any:
    """Record a finished call of a plain function, and return its result. Never raises.

    A result that is work still to be done is followed instead: the event belongs to its end.
    """
    frame = current_frame(1)
    kind = kind_of_result(result)
    if kind == "response":
        finish_call(rule, extras, held, result, failed_response(result, frame.f_code), frame=frame)
        return result
    if kind is None or not buffer.append_limit or (kind != "future" and is_held_elsewhere(result)):
        finish_call(rule, extras, held, result, frame=frame)
        return result
    try:
        if additions:  # of the plain function around the work
            extras = with_additions(rule, extras, frame)
        if kind == "future":
            follow_future(rule, extras, held, result)
            return result
        begun = {"ts_extras": extras, "ts_held": held, "ts_begun": begin_scope()}
        followed = _made(rule, ReturnedWork(result), kind, [], "ts_extras", "ts_held", (), **begun)()
        followed.__name__, followed.__qualname__ = result.__name__, result.__qualname__
    except Exception as error:  # noqa: BLE001 # pragma: no cover - the barrier: nothing known raises here
        count_fault("following a call", error)
        return result
    return followed


def finish_coroutine(rule: CaptureRule, extras: Extras, held: Arguments | None, result: Any) -> None:
    """Record a finished call of a coroutine function: its result is a value. Never raises."""
    frame = current_frame(1)
    error = failed_response(result, frame.f_code) if kind_of_result(result) == "response" else None
    finish_call(rule, extras, held, result, error, frame=frame)


def _made(
    rule: CaptureRule,
    function: Callable[..., Any],
    kind: Kind,
    begin: list[str],
    extras: str,
    held: str,
    captured: tuple[str, ...],
    **cells: Any,
) -> Callable[..., Any]:
    start = "None"
    if kind == "coroutine" and rule.on != "success":  # the collection of a task ends it in anybody's context
        begin = [*begin, "ts_start = ts.begin_scope()"]
        start = "ts_start if py.isinstance(ts_error, py.GeneratorExit) else None"
    template = _TEMPLATES[kind].replace("BEGIN", "\n    ".join(begin) or "pass")
    template = template.replace("FINISH", _DIRECT if rule.plain else _FINISH)
    template = template.replace("EXHAUSTED", _EXHAUSTED if rule.plain else _FINISH_EXHAUSTED)
    if kind == "coroutine":  # its result is a value
        template = template.replace("ts_result = ts.finish_function", "ts.finish_coroutine")
    if "ts_begun" in cells:  # the call began before the first step
        template = template.replace("ts_start = ts.start()", "ts_start = ts_begun")
        template = template.replace("ts_start, ts_used = ts.begin_scope()", "ts_start, ts_used = ts_begun")
    template = template.replace("EXTRAS", extras).replace("HELD", held).replace("START", start)
    return closure(
        template,
        function,
        {"ts": _SELF, "py": builtins, "ts_rule": rule, "ts_template": rule.template, **cells},
        filename=FILENAME,
        captured=captured,
        any_arguments=rule.describe is not None or (bool(rule.arguments) and not captured),
        flags=CO_ITERABLE_COROUTINE if kind == "generator coroutine" else 0,
        code_name=rule.code_name,
    )


_SELF = sys.modules[__name__]
when_tracing(globals(), now=tracing.now, start=unready)
