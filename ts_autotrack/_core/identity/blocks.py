"""The blocks that say who is acting for a stretch of work.

A block keeps next to no state: the current scope knows the block that made it and the scope around that, so a block may
be shared by tasks, nested in itself, and left in another context than it was entered in.
"""

from __future__ import annotations

from functools import partial

from ts_autotrack._core.decorate import decorate, drop_frame, first_step
from ts_autotrack._core.identity.scope import current, nearest_open, restore, set_current

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import Any, TypeVar

    from ts_autotrack._core.decorate import Kind, Wrap
    from ts_autotrack._core.identity.scope import Scope

    F = TypeVar("F")


class ScopeBlock:
    """A with-block, async-with-block or decorator inside of which another scope is current."""

    __slots__ = ("_entered",)

    def __init__(self) -> None:
        self._entered: list[Scope] = []

    def inner(self, outer: Scope) -> Scope:
        """Return the scope that is to be current inside the block."""
        raise NotImplementedError  # pragma: no cover - each block says its own

    def enter(self) -> Scope:
        """Make the inner scope current and return it."""
        outer = nearest_open(current())
        scope = self.inner(outer)
        scope.owner, scope.outer = self, outer
        self._entered.append(scope)
        scope.token = set_current(scope)
        return scope

    def leave(self, origin: Scope) -> None:
        """End the scope that `enter` gave, wherever this is called."""
        if origin in self._entered:  # not if it was left in a copy of the context already
            self._entered.remove(origin)
        origin.weigh()
        now = current()
        if (now.origin or now) is not origin or origin.outer is None:
            origin.close()  # left in another context, or before a block that was entered later
            return
        outer = origin.outer
        if restore(origin.token):
            # Work that was begun inside goes on with the scope; if it enters another one, and begins more work in that,
            # and so on, each of them would hold the ones before it for good.
            origin.outer = None
        else:
            origin.close()  # this is a copy of the context that entered, which goes on with the scope
        origin.owner = None  # a pending event holds the scope, and should not hold the block
        origin.token = None  # it holds the whole context, and a pending event holds the scope
        set_current(nearest_open(outer))

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        scope = current()
        if scope.owner is self:
            self.leave(scope.origin or scope)
        elif len(self._entered) == 1:  # of several, ending the wrong one would give somebody else's events away
            self.leave(self._entered[0])

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()

    def __call__(self, function: F, /) -> F:
        """Return `function` decorated: each call, and each step of a generator, runs inside the block."""
        decorated: F = decorate(self, function)
        return decorated

    def prepare(self, target: object, kind: Kind) -> Wrap:
        """Return what makes the closures."""
        del target

        def wrap(function: Callable[..., Any], *, bound: bool = False) -> Callable[..., Any]:
            del bound
            return _WRAPPERS[kind](self, function)

        return wrap


class _Entry:
    """One entering of a block that many calls share: it ends its own scope and no other call's."""

    __slots__ = ("_block", "_scope")

    def __init__(self, block: ScopeBlock) -> None:
        self._block = block

    def __enter__(self) -> None:
        self._scope = self._block.enter()

    def __exit__(self, *_: object) -> None:
        self._block.leave(self._scope)


def _function(block: ScopeBlock, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _Entry(block):
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                drop_frame(error)
                raise

    return call


def _coroutine(block: ScopeBlock, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with _Entry(block):
            try:
                coroutine = function(*args, **kwargs)
                del args, kwargs
                return await coroutine
            except BaseException as error:
                drop_frame(error)
                raise

    return call


def _generator(block: ScopeBlock, function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter the block for each step: what the consumer does between two steps is not inside it."""

    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        try:
            generator = function(*args, **kwargs)
            del args, kwargs
            step: Any = generator.__next__
            while True:
                try:
                    with _Entry(block):
                        item = step()
                except StopIteration as stop:
                    return stop.value
                step = None  # it holds what was sent or thrown
                try:
                    step = partial(generator.send, (yield item))
                except GeneratorExit:
                    with _Entry(block):
                        generator.close()
                    raise
                except BaseException as thrown:
                    drop_frame(thrown)
                    step = partial(generator.throw, thrown)
        except BaseException as error:
            drop_frame(error)
            raise

    return call


def _async_generator(block: ScopeBlock, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        try:
            generator = function(*args, **kwargs)
            del args, kwargs
            step: Any = first_step(generator)
            while True:
                try:
                    with _Entry(block):
                        item = await step
                except StopAsyncIteration:
                    return
                step = None  # it holds what was sent or thrown
                try:
                    step = generator.asend((yield item))
                except GeneratorExit:
                    with _Entry(block):
                        await generator.aclose()
                    raise
                except BaseException as thrown:
                    drop_frame(thrown)
                    step = generator.athrow(thrown)
        except BaseException as error:
            drop_frame(error)
            raise

    return call


_WRAPPERS: dict[Kind, Callable[[ScopeBlock, Callable[..., Any]], Callable[..., Any]]] = {
    "function": _function,
    "coroutine": _coroutine,
    "generator": _generator,
    "async generator": _async_generator,
}
