"""Callables: their kind, their name, and the small steps that every wrapper shares."""

from __future__ import annotations

import sys
from functools import partial
from types import FunctionType

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from typing import Any, Literal, Protocol, TypeAlias

    Kind: TypeAlias = Literal["function", "coroutine", "generator", "async generator"]
    """Result of a call: a value, or an object to await or iterate."""

    class Wrap(Protocol):
        """Factory of the closure around a function."""

        def __call__(self, function: Callable[..., Any], *, bound: bool = False) -> Callable[..., Any]:
            """Return a callable of the same kind around `function`.

            Args:
                function: The decorated target, or the target after binding.
                bound: True if `function` has its first argument bound already.
            """
            ...

    class Decorator(Protocol):
        """The interface that `decorate` and the proxies use."""

        def __call__(self, target: Any, /) -> Any:
            """Return `target` decorated."""
            ...

        def prepare(self, target: Any, kind: Kind) -> Wrap:
            """Inspect `target` once, at decoration, and return the factory of its closures."""
            ...


MAX_WRAPPERS = 50
"""Callables inside each other that are opened: a Mock, or a partial made of itself, has no end."""

# inspect.CO_*, without the import of inspect
CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200


def kind_of(target: Any) -> Kind:
    """Return the kind of a callable."""
    if type(target) is FunctionType and "_is_coroutine_mark" not in target.__dict__:
        flags = target.__code__.co_flags
        if flags & (CO_COROUTINE | CO_ITERABLE_COROUTINE):
            return "coroutine"
        if flags & CO_GENERATOR:
            return "generator"
        return "async generator" if flags & CO_ASYNC_GENERATOR else "function"
    return _inspected_kind(target)


def _inspected_kind(target: Any) -> Kind:
    import inspect

    for candidate in (target, target.__call__ if callable(target) else None):  # an object's own async __call__
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
    return "function"


def attribute(target: object, name: str, default: Any = None) -> Any:
    """Return an attribute, or `default` if reading raises: the `__getattr__` of a foreign object may raise anything."""
    try:
        return getattr(target, name, default)
    except Exception:  # noqa: BLE001 - foreign code
        return default


def name_of(target: Any) -> str:
    """Return the name of a callable: its own, or the name of the function inside a `functools.partial`.

    No other attribute is followed: a Mock has a new object for every name, without end.
    """
    for _ in range(MAX_WRAPPERS):
        name = attribute(target, "__name__")
        if type(name) is str and name:
            return name
        if not issubclass(attribute(target, "__class__", type(target)), partial):
            break
        target = attribute(target, "func")
    return type(target).__name__


def drop_frame(error: BaseException) -> None:
    """Remove the handling frame from the traceback of `error`: a user's traceback shows no line of this library.

    Python 3.10 raises again with the traceback saved at the start of the handler, so the line stays there.
    """
    # The method of the base class: an exception may be a frozen dataclass, which refuses attributes.
    BaseException.with_traceback(error, getattr(error.__traceback__, "tb_next", None))


def first_step(generator: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """Return the awaitable of an async generator's first step, begun without the event loop's hooks.

    The loop closes every generator known to its hooks. The hooks know the wrapper, and the wrapper closes `generator`.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, _ignore)
    try:
        return generator.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _ignore(_: object) -> None:
    """Finalize nothing: the end of the wrapper has closed the generator."""
