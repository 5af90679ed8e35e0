"""The four wrappers of track_feature. What runs here runs in every tracked call, so it is written out.

A successful plain call appends its record by itself; `finish` does all else. Each wrapper takes its own frame out of a
traceback and lets go of the arguments before it suspends, so that decorating changes nothing that a program can see.
Calling with keyword arguments only where there are some takes 10 ns less: a tenth of a call that makes no event.
"""

from __future__ import annotations

from time import time_ns
from types import CoroutineType

from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import additions, call_codes, finish
from ts_autotrack._core.decorate import drop_frame, first_step, kind_of
from ts_autotrack._core.identity.scope import current

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any

    from ts_autotrack._core.capture.call import Rule
    from ts_autotrack._core.capture.record import Extras
    from ts_autotrack._core.decorate import Kind

_records = buffer.records
_append = buffer.records.append
_suppressed = buffer.drops["suppressed"]


def wrap(rule: Rule, function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Return a closure of the given kind around `function` that leaves an event as `rule` says."""
    wrapper = _WRAPPERS[kind]
    if kind == "function":
        if _wraps_coroutine(function):
            wrapper = _function_giving_coroutines
        elif rule.plain and not rule.arguments:
            wrapper = _plain_function
    call = wrapper(rule, function)
    call_codes.add(call.__code__)
    return call


def _plain_function(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    """As `_function`, for the common rule that has nothing to copy: a fifth less for a call that makes no event."""
    site = rule.site

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            drop_frame(error)
            finish(rule, None, None, None, error)
            raise
        if additions:
            finish(rule, None, None, result)
        elif room := buffer.append_limit:
            scope = current()
            if scope.muted:
                next(_suppressed)
            elif scope.ready and len(_records) < room:
                _append((site, scope, time_ns(), None))
            else:
                finish(rule, None, None, result)
        else:
            next(buffer.closed_drops)
        return result

    return call


def _function(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    site, plain, captures, describes = rule.site, rule.plain, bool(rule.arguments), rule.describe is not None

    def call(*args: Any, **kwargs: Any) -> Any:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        try:
            result = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            drop_frame(error)
            finish(rule, extras, (args, kwargs) if describes else None, None, error)
            raise
        scope = current()
        if plain and scope.ready and len(_records) < buffer.append_limit and not additions:
            _append((site, scope, time_ns(), extras))
        else:
            finish(rule, extras, (args, kwargs) if describes else None, result)
        return result

    return call


def _wraps_coroutine(function: Any) -> bool:
    """Whether another decorator made a plain function of a coroutine function, so that calling it only begins it."""
    seen: set[int] = set()
    while id(function) not in seen and (inner := getattr(function, "__wrapped__", None)) is not None:
        seen.add(id(function))
        function = inner
    return kind_of(function) == "coroutine"


def _function_giving_coroutines(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    captures, describes = bool(rule.arguments), rule.describe is not None

    async def finished(coroutine: Any, extras: Extras, held: Any) -> Any:
        try:
            result = await coroutine
        except BaseException as error:
            drop_frame(error)
            finish(rule, extras, held, None, error)
            raise
        finish(rule, extras, held, result)
        return result

    def call(*args: Any, **kwargs: Any) -> Any:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        try:
            result = function(*args, **kwargs) if kwargs else function(*args)
        except BaseException as error:
            drop_frame(error)
            finish(rule, extras, held, None, error)
            raise
        if type(result) is CoroutineType:
            return finished(result, extras, held)
        finish(rule, extras, held, result)
        return result

    call_codes.add(finished.__code__)
    return call


def _coroutine(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    site, plain, captures, describes = rule.site, rule.plain, bool(rule.arguments), rule.describe is not None

    async def call(*args: Any, **kwargs: Any) -> Any:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        try:
            coroutine = function(*args, **kwargs) if kwargs else function(*args)
            del args, kwargs
            result = await coroutine
        except BaseException as error:
            drop_frame(error)
            finish(rule, extras, held, None, error)
            raise
        scope = current()
        if plain and scope.ready and len(_records) < buffer.append_limit and not additions:
            _append((site, scope, time_ns(), extras))
        else:
            finish(rule, extras, held, result)
        return result

    return call


def _generator(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    site, plain, captures, describes = rule.site, rule.plain, bool(rule.arguments), rule.describe is not None

    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        begun = current()  # who acts: whoever collects an abandoned generator has nothing to do with it
        try:
            generator = function(*args, **kwargs)
            del args, kwargs
            result = yield from generator
        except GeneratorExit as error:  # closed early by its consumer: used
            drop_frame(error)
            finish(rule, extras, held, scope=begun)
            raise
        except BaseException as error:
            drop_frame(error)
            finish(rule, extras, held, None, error, begun)
            raise
        if plain and begun.ready and len(_records) < buffer.append_limit and not additions:
            _append((site, begun, time_ns(), extras))
        else:
            finish(rule, extras, held, result, scope=begun)
        return result

    return call


def _async_generator(rule: Rule, function: Callable[..., Any]) -> Callable[..., Any]:
    captures, describes = bool(rule.arguments), rule.describe is not None

    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        extras = rule.capture(args, kwargs) if captures and buffer.append_limit else None
        held = (args, kwargs) if describes else None
        begun = current()
        try:
            generator = function(*args, **kwargs)
            del args, kwargs
            step: Any = first_step(generator)
            while True:
                try:
                    item = await step
                except StopAsyncIteration:
                    break
                step = None  # it holds what was sent or thrown
                try:
                    step = generator.asend((yield item))
                except GeneratorExit:  # closed early by its consumer
                    await generator.aclose()
                    raise
                except BaseException as thrown:
                    drop_frame(thrown)
                    step = generator.athrow(thrown)
        except GeneratorExit as error:
            drop_frame(error)
            finish(rule, extras, held, scope=begun)
            raise
        except BaseException as error:
            drop_frame(error)
            finish(rule, extras, held, None, error, begun)
            raise
        finish(rule, extras, held, scope=begun)

    return call


_WRAPPERS: dict[Kind, Callable[[Rule, Callable[..., Any]], Callable[..., Any]]] = {
    "function": _function,
    "coroutine": _coroutine,
    "generator": _generator,
    "async generator": _async_generator,
}
