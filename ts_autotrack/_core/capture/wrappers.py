"""The wrappers of track_feature. This code runs in every tracked call, so nothing is factored out.

A successful plain call appends its record directly; `finish_call` handles all other cases. Each wrapper removes its own
frame from tracebacks, and releases the arguments before a suspension, so that a program sees no difference.
A call with keyword arguments only if there are any takes 10 ns less: a tenth of a call without an event.
"""

from __future__ import annotations

from time import time_ns
from types import CoroutineType

from ts_autotrack._core.callables import MAX_WRAPPERS, attribute, drop_frame, first_step, kind_of
from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import finish_call, with_additions
from ts_autotrack._core.capture.stack import additions, call_codes
from ts_autotrack._core.identity.scope import current

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any

    from ts_autotrack._core.callables import Kind
    from ts_autotrack._core.capture.call import CaptureRule
    from ts_autotrack._core.capture.record import Extras

_records = buffer.records
_append = buffer.records.append
_suppressed = buffer.drops["suppressed"]


def wrap_function(rule: CaptureRule, function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Return a closure of the given kind around `function` that records events by `rule`."""
    wrapper = _WRAPPERS[kind]
    if kind == "function":
        if _wraps_coroutine(function):
            wrapper = _function_returning_coroutine
        elif rule.plain and not rule.arguments:
            wrapper = _plain_function
    call = wrapper(rule, function)
    call_codes.add(id(call.__code__))
    return call


def _plain_function(rule: CaptureRule, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function of a plain rule without arguments: a fifth less than `_function` for a call without an event."""
    template = rule.template

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, None, None, None, error)
            raise
        if additions:
            finish_call(rule, None, None, result)
        elif limit := buffer.append_limit:
            scope = current()
            if scope.drop_suppressed:
                next(_suppressed)
            elif scope.ready and len(_records) < limit:
                _append((template, scope, time_ns(), None))
            else:
                finish_call(rule, None, None, result)
        else:
            next(buffer.closed_drops)
        return result

    return call


def _function(rule: CaptureRule, function: Callable[..., Any]) -> Callable[..., Any]:
    template, plain, captures, describes = rule.template, rule.plain, bool(rule.arguments), rule.describe is not None

    def call(*args: Any, **kwargs: Any) -> Any:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        try:
            result = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, extras, (args, kwargs) if describes else None, None, error)
            raise
        scope = current()
        if plain and scope.ready and len(_records) < buffer.append_limit and not additions:
            _append((template, scope, time_ns(), extras))
        else:
            finish_call(rule, extras, (args, kwargs) if describes else None, result)
        return result

    return call


def _wraps_coroutine(function: Any) -> bool:
    """Return True if another decorator wrapped a coroutine function in a plain function: its call begins no work."""
    for _ in range(MAX_WRAPPERS):
        if (inner := attribute(function, "__wrapped__")) is None:
            break
        function = inner
    try:
        return kind_of(function) == "coroutine"
    except Exception:  # noqa: BLE001 - an object that invents attributes, such as a Mock
        return False


def _function_returning_coroutine(rule: CaptureRule, function: Callable[..., Any]) -> Callable[..., Any]:
    captures, describes = bool(rule.arguments), rule.describe is not None

    async def finished(coroutine: Any, extras: Extras, held: Any) -> Any:
        try:
            result = await coroutine
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, extras, held, None, error)
            raise
        finish_call(rule, extras, held, result)
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        try:
            result = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, extras, held, None, error)
            raise
        if type(result) is CoroutineType:
            if additions:  # of the plain function around the coroutine function
                extras = with_additions(rule, extras)
            return finished(result, extras, held)
        finish_call(rule, extras, held, result)
        return result

    call_codes.add(id(finished.__code__))
    return call


def _coroutine(rule: CaptureRule, function: Callable[..., Any]) -> Callable[..., Any]:
    template, plain, captures, describes = rule.template, rule.plain, bool(rule.arguments), rule.describe is not None

    async def call(*args: Any, **kwargs: Any) -> Any:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        try:
            coroutine = function(*args, **kwargs) if kwargs else function(*args)
            del args, kwargs
            result = await coroutine
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, extras, held, None, error)
            raise
        scope = current()
        if plain and scope.ready and len(_records) < buffer.append_limit and not additions:
            _append((template, scope, time_ns(), extras))
        else:
            finish_call(rule, extras, held, result)
        return result

    return call


def _generator(rule: CaptureRule, function: Callable[..., Any]) -> Callable[..., Any]:
    template, plain, captures, describes = rule.template, rule.plain, bool(rule.arguments), rule.describe is not None

    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        scope = current()  # an abandoned generator may be collected in another user's context
        try:
            generator = function(*args, **kwargs)
            del args, kwargs
            result = yield from generator
        except GeneratorExit as error:  # closed early by the consumer: counts as success
            drop_frame(error)
            finish_call(rule, extras, held, scope=scope)
            raise
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, extras, held, None, error, scope)
            raise
        if plain and scope.ready and len(_records) < buffer.append_limit and not additions:
            _append((template, scope, time_ns(), extras))
        else:
            finish_call(rule, extras, held, result, scope=scope)
        return result

    return call


def _async_generator(rule: CaptureRule, function: Callable[..., Any]) -> Callable[..., Any]:
    captures, describes = bool(rule.arguments), rule.describe is not None

    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        scope = current()
        try:
            generator = function(*args, **kwargs)
            del args, kwargs
            step: Any = first_step(generator)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                step = None  # release the sent or thrown object
                try:
                    step = generator.asend((yield item))
                except GeneratorExit:  # closed early by the consumer
                    await generator.aclose()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - passed on to the generator
                    drop_frame(thrown)
                    step = generator.athrow(thrown)
        except GeneratorExit as error:
            drop_frame(error)
            finish_call(rule, extras, held, scope=scope)
            raise
        except BaseException as error:
            drop_frame(error)
            finish_call(rule, extras, held, None, error, scope)
            raise
        finish_call(rule, extras, held, scope=scope)

    return call


_WRAPPERS: dict[Kind, Callable[[CaptureRule, Callable[..., Any]], Callable[..., Any]]] = {
    "function": _function,
    "coroutine": _coroutine,
    "generator": _generator,
    "async generator": _async_generator,
}
