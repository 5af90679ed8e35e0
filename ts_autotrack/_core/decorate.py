"""How a callable is decorated so that a program sees no difference: what kind it is, and which wrapper fits it."""

from __future__ import annotations

import sys
from functools import update_wrapper
from types import FunctionType

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from typing import Any, Literal, Protocol, TypeAlias

    Kind: TypeAlias = Literal["function", "coroutine", "generator", "async generator"]

    class Wrap(Protocol):
        """Makes the closure around a function."""

        def __call__(self, function: Callable[..., Any], *, bound: bool = False) -> Callable[..., Any]:
            """Return a callable of the same kind around `function`; `bound` if it is the target bound to its object."""
            ...

    class Decorator(Protocol):
        """What `decorate` needs."""

        def prepare(self, target: Any, kind: Kind) -> Wrap:
            """Look at what is to be decorated, once, and return what makes closures for it."""
            ...


_CO_GENERATOR, _CO_COROUTINE, _CO_ITERABLE_COROUTINE, _CO_ASYNC_GENERATOR = (
    0x20,
    0x80,
    0x100,
    0x200,
)  # inspect.CO_*, without importing inspect


def decorate(decorator: Decorator, target: Any) -> Any:
    """Return `target` wrapped by `decorator`, as the same sort of object.

    Args:
        decorator: Makes the closure.
        target: A function, classmethod, staticmethod, or any other callable but a class.

    Returns:
        A function for a function, a classmethod for a classmethod; for other callables a transparent proxy.

    Raises:
        TypeError: If `target` is a class or not callable; the message says what to decorate instead.
    """
    if type(target) is FunctionType:
        return update_wrapper(decorator.prepare(target, kind_of(target))(target), target)
    if issubclass(type(target), (classmethod, staticmethod)):  # not isinstance, which proxies of them answer, too
        return type(target)(decorate(decorator, target.__func__))
    _check(target)
    from ts_autotrack._core.proxy import Proxy

    return Proxy(decorator, target)


def kind_of(target: Any) -> Kind:
    """Return what calling `target` gives: a value, or something to await or iterate."""
    if type(target) is FunctionType and "_is_coroutine_mark" not in target.__dict__:
        flags = target.__code__.co_flags
        if flags & (_CO_COROUTINE | _CO_ITERABLE_COROUTINE):
            return "coroutine"
        if flags & _CO_GENERATOR:
            return "generator"
        return "async generator" if flags & _CO_ASYNC_GENERATOR else "function"
    import inspect

    for candidate in (target, getattr(target, "__call__", None)):
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
    return "function"


def name_of(target: Any) -> str | None:
    """Return the name a reader would give `target`: its own, or that of the function inside it."""
    while target is not None:
        if name := getattr(target, "__name__", None):
            return str(name)
        if not (inner := getattr(target, "func", None)):  # functools.partial
            return type(target).__name__
        target = inner
    return None  # pragma: no cover - only None has no name


def drop_frame(error: BaseException) -> None:
    """Take the frame that is handling `error` out of its traceback: a user's traceback shows no line of ours.

    Python 3.10 re-raises the traceback that it saved when the handler began, so there the line stays.
    """
    # By the base class's method: an exception may be a frozen dataclass, which refuses to have attributes set.
    BaseException.with_traceback(error, getattr(error.__traceback__, "tb_next", None))


def first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Return the awaitable of an async generator's first step, begun without the event loop's hooks.

    The loop closes every generator that it knows of: it knows of our wrapper, which closes the one inside.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, _leave)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _leave(_: object) -> None:
    """Finalize nothing: collecting the wrapper has closed it."""


def _check(target: object) -> None:
    if isinstance(target, type):
        message = (
            f"cannot decorate the class {target.__qualname__}: calling it makes an object, which is no feature. "
            "Decorate the method that users reach, or its __init__."
        )
        raise TypeError(message)
    if isinstance(target, property):
        message = "cannot decorate a property: put the decorator below @property, on the function itself."
        raise TypeError(message)
    if not callable(target):
        message = f"cannot decorate {type(target).__name__} object: it is not callable. Decorate a function or method."
        raise TypeError(message)
