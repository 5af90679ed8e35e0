"""Callables: their kind, their name, and the small steps that every wrapper shares."""

from __future__ import annotations

import sys
from functools import partial
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from types import CodeType
    from typing import Any, Literal, Protocol, TypeAlias

    Kind: TypeAlias = Literal[
        "function", "coroutine", "generator", "generator coroutine", "async generator", "future", "response"
    ]
    """Result of a call: a value, an object to await or iterate, or (of a plain function only) a future.

    A response is a value that may mean a failure: see `responses`.
    """

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

        def decorate_function(self, function: FunctionType, kind: Kind) -> Callable[..., Any]:
            """Return a plain function decorated."""
            ...

        def prepare(self, target: Any) -> Wrap:
            """Inspect another callable once, at decoration, and return the factory of its closures."""
            ...


MAX_WRAPPERS = 50
"""Callables inside each other that are opened: a Mock, or a partial made of itself, has no end."""

# inspect.CO_*, without the import of inspect
CO_GENERATOR, CO_COROUTINE, CO_ITERABLE_COROUTINE, CO_ASYNC_GENERATOR = 0x20, 0x80, 0x100, 0x200

WORK: dict[type, Kind] = {
    CoroutineType: "coroutine",
    GeneratorType: "generator",
    AsyncGeneratorType: "async generator",
}
"""Results that need a second look, by type: work still to be done of a plain function, and responses.

`know_futures` adds the futures, `register_response` the responses.
"""


def kind_of(target: Any) -> Kind:
    """Return the kind of a callable.

    All but a plain Python function is a "function": a partial, an object, a function that is only marked as a coroutine
    function. Its wrapper looks at each result: a result of a type in `WORK` is followed to its end.
    """
    return kind_of_code(target.__code__) if type(target) is FunctionType else "function"


def kind_of_code(code: CodeType) -> Kind:
    """Return the kind of a function by its code."""
    flags = code.co_flags
    if flags & CO_COROUTINE:
        return "coroutine"
    if flags & CO_GENERATOR:
        return "generator coroutine" if flags & CO_ITERABLE_COROUTINE else "generator"
    return "async generator" if flags & CO_ASYNC_GENERATOR else "function"


def kind_of_result(result: object) -> Kind | None:
    """Return the kind of work that a plain function has returned; None for a value. Never raises."""
    try:
        return WORK.get(type(result))
    except Exception:  # noqa: BLE001 - a metaclass of the application may have no hash
        return None


def _references(work: object) -> int:
    return sys.getrefcount(work)


def _of_result(result: object) -> int:
    return _references(result)


def _of_fresh_object() -> int:
    """Return the references to an object in a wrapper's variable, where a helper of the wrapper asks for the number."""
    made: Any = object()
    made = _of_result(made)  # as in the wrappers: Python 3.14 counts other uses of a variable differently
    return int(made)


# Python 3.14 borrows the references of variables where it can: the number tells nothing there.
_FRESH = _of_fresh_object() if sys.version_info < (3, 14) else sys.maxsize


def is_held_elsewhere(work: object) -> bool:
    """Return True if others than the wrapper hold the result of a call. For a helper that the wrapper calls.

    A function may return a generator that it was given: wrapping the generator would give it two owners.
    """
    return sys.getrefcount(work) > _FRESH


class ReturnedWork:
    """Coroutine or generator that a plain function has returned; called once, by the wrapper around it.

    A coroutine of a wrapper that never starts is closed: Python would report a second coroutine as never awaited.
    """

    __slots__ = ("_work",)

    def __init__(self, work: Any) -> None:
        self._work = work

    def __call__(self) -> Any:
        work, self._work = self._work, None
        return work

    def __del__(self) -> None:
        if type(self._work) is CoroutineType and sys.getrefcount(self._work) == _OWN_REFERENCES:
            self._work.close()


_OWN_REFERENCES = 2
"""References to work that the application does not hold: the attribute, and the argument of `getrefcount`."""


_FUTURES = {"asyncio": ("Future", "Task"), "concurrent.futures._base": ("Future",)}
_known_modules: set[str] = set()


def know_futures(*, again: bool = False) -> None:
    """Add the futures of loaded modules to `WORK`; with `again`, also subclasses made since the last time."""
    for module, names in _FUTURES.items():
        if module in _known_modules and not again:
            continue
        found = [getattr(sys.modules.get(module), name, None) for name in names]
        for kind in found:
            if isinstance(kind, type):
                WORK.update(dict.fromkeys((kind, *kind.__subclasses__()), "future"))  # of `asyncio.gather`, for example
        if None not in found:
            _known_modules.add(module)


def wrapped_objects(target: Any) -> Iterator[Any]:
    """Yield the objects that decorators have wrapped, by `__wrapped__`, from the outside in."""
    for _ in range(MAX_WRAPPERS):
        target = attribute(target, "__wrapped__")
        if target is None:
            return
        yield target


def inner_functions(target: Any) -> Iterator[FunctionType]:
    """Yield the plain functions that decorators have wrapped, from the outside in."""
    return (inner for inner in wrapped_objects(target) if type(inner) is FunctionType)


def managed_generator(target: Any) -> FunctionType | None:
    """Return the generator function that `@contextmanager` or `@asynccontextmanager` made `target` from."""
    contextlib = sys.modules.get("contextlib")
    if type(target) is not FunctionType or contextlib is None or target.__globals__ is not vars(contextlib):
        return None
    inner = target.__dict__.get("__wrapped__")
    return inner if kind_of(inner) in {"generator", "async generator"} else None


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
