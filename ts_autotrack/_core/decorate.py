"""Decoration of any callable: the result is the same sort of object as the target."""

from __future__ import annotations

from functools import update_wrapper
from types import FunctionType

from ts_autotrack._core.callables import kind_of, managed_generator

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Any

    from ts_autotrack._core.callables import Decorator


def decorate(decorator: Decorator, target: Any) -> Any:
    """Return `target` wrapped by `decorator`, as the same sort of object.

    Args:
        decorator: Makes the closure.
        target: A function, classmethod, staticmethod, or any other callable but a class.

    Returns:
        A function for a function, a classmethod for a classmethod; for other callables a transparent proxy.

    Raises:
        TypeError: If `target` is a class or not callable. The message names the callable to decorate instead.
    """
    if type(target) is FunctionType:
        generator = managed_generator(target)
        if generator is None:
            return decorator.decorate_function(target, kind_of(target))
        import contextlib

        inner = decorate(decorator, generator)
        is_async = kind_of(generator) == "async generator"
        return update_wrapper(
            (contextlib.asynccontextmanager if is_async else contextlib.contextmanager)(inner), target
        )
    if issubclass(type(target), (classmethod, staticmethod)):  # proxies of a classmethod would pass isinstance
        return type(target)(decorate(decorator, target.__func__))
    _check(target)
    from ts_autotrack._core.proxy import Proxy

    return Proxy(decorator, target)


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
