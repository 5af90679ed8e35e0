"""Decoration of any callable: the result is the same sort of object as the target."""

from __future__ import annotations

from functools import partial, update_wrapper
from types import FunctionType, MemberDescriptorType

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
        A function for a function, a classmethod for a classmethod; `target` itself for a task or command of another
        library, which runs the decorated function from then on; a transparent proxy for other callables.

    Raises:
        TypeError: If `target` is a class or not callable. The message names the callable to decorate instead.
    """
    if type(target) is FunctionType:
        generator = managed_generator(target)
        if generator is None:
            return decorator.decorate_function(target, kind_of(target))
        return _remade_manager(target, generator, decorate(decorator, generator))
    for kind in (classmethod, staticmethod):
        if issubclass(type(target), kind):  # proxies of a classmethod would pass isinstance
            return _with_function(kind, target, decorate(decorator, target.__func__))
    try:
        return _decorate_object(decorator, target)
    except TypeError:
        raise
    except Exception as error:
        message = (
            f"cannot decorate {type(target).__name__} object: reading its attributes raises {type(error).__name__}. "
            "Decorate a function or method."
        )
        raise TypeError(message) from error


def _remade_manager(target: FunctionType, generator: FunctionType, decorated: Any) -> Any:
    """Return a `@contextmanager` function around the decorated generator function: its work ends with the block."""
    if decorated is generator:
        return target
    import contextlib

    is_async = kind_of(generator) == "async generator"
    return update_wrapper(
        contextlib.asynccontextmanager(decorated) if is_async else contextlib.contextmanager(decorated), target
    )


def _with_function(kind: Any, method: Any, function: Any) -> Any:
    """Return a twin of a classmethod or staticmethod object, around another function."""
    if function is method.__func__:
        return method
    own: Any = type(method)
    twin = own.__new__(own)
    kind.__init__(twin, function)  # a subclass may take other arguments
    twin.__dict__.update(method.__dict__)
    for base in own.__mro__[: own.__mro__.index(kind)]:
        for slot in vars(base).values():
            if type(slot) is MemberDescriptorType and hasattr(method, slot.__name__):
                slot.__set__(twin, slot.__get__(method))
    return twin


def _decorate_object(decorator: Decorator, target: Any) -> Any:
    from ts_autotrack._core.registered import decorate_registered, warn_of_queue

    if decorate_registered(target, partial(decorate, decorator)):
        return target
    _check(target)
    from ts_autotrack._core.proxy import proxied

    warn_of_queue(target)
    return proxied(decorator, target)


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
