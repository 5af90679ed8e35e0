"""Blocks: each sets the scope for a stretch of work.

A block keeps almost no state: each entering has a `BlockEntry`. Several tasks may share a block, a block may be nested
in itself, and a block may be left in another context than the entering context.
"""

from __future__ import annotations

from ts_autotrack._core.decorate import decorate
from ts_autotrack._core.identity.inside import wrap_inside
from ts_autotrack._core.identity.outgoing import write_ids
from ts_autotrack._core.identity.scope import BlockEntry, current, nearest_open, restore, set_current

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType
    from typing import Any, TypeVar

    from ts_autotrack._core.callables import Kind, Wrap
    from ts_autotrack._core.identity.scope import Scope

    F = TypeVar("F")


class Block:
    """A with-block or async-with-block with a scope of its own.

    Attributes:
        propagate: True if outgoing baggage carries the ids of the user inside, False if not; None to do as around.
    """

    __slots__ = ("_entered",)
    propagate: bool | None = None

    def __init__(self) -> None:
        self._entered: list[BlockEntry] = []

    def inner(self, outer: Scope) -> Scope:
        """Return the scope for the inside of the block."""
        raise NotImplementedError  # pragma: no cover - every subclass overrides this method

    def enter(self) -> BlockEntry:
        """Make the inner scope current."""
        outer = current()
        around = outer.entry
        if around is not None and around.closed:
            outer = nearest_open(outer)
            around = outer.entry
        propagate = self.propagate
        if propagate:
            write_ids()
        elif propagate is None and around is not None:
            propagate = around.propagate
        scope = self.inner(outer)
        entry = scope.entry = BlockEntry(self, scope, outer, propagate)
        self._entered.append(entry)
        entry.token = set_current(scope)
        return entry

    def leave(self, entry: BlockEntry) -> None:
        """End one entering of the block, in any context."""
        self._forget(entry)
        outer = entry.outer
        if current().entry is not entry or outer is None:
            entry.close()  # left in another context, or before an inner block
            return
        if restore(entry.token):
            entry.detach()
        else:
            entry.close()  # left in a copy of the entering context; the original goes on with the scope
            entry.block = None
        if outer.entry is not None and outer.entry.closed:
            outer = nearest_open(outer)
        if current() is not outer:  # `restore` has done this already in most cases
            set_current(outer)

    def entry_to_leave(self) -> BlockEntry | None:
        """Return the entering that ends now; None if it cannot be told."""
        entry = current().entry
        if entry is not None and entry.block is self:
            return entry
        # With several, a wrong choice would give events to another user.
        return self._entered[0] if len(self._entered) == 1 else None

    def _forget(self, entry: BlockEntry) -> None:
        if entry in self._entered:  # absent after a leave in a copy of the context
            self._entered.remove(entry)

    def __enter__(self) -> Any:
        self.enter()

    def __exit__(self, *_: object) -> None:
        entry = self.entry_to_leave()
        if entry is not None:
            self.leave(entry)

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


class ScopeBlock(Block):
    """A block that is a decorator, too."""

    __slots__ = ()

    def __call__(self, function: F, /) -> F:
        """Return `function` decorated: each call, and each step of a generator, runs inside the block."""
        decorated: F = decorate(self, function)
        return decorated

    def decorate_function(self, function: FunctionType, kind: Kind) -> Callable[..., Any]:
        """Return a plain function that runs inside the block."""
        return wrap_inside(self, function, kind)

    def prepare(self, target: object) -> Wrap:
        """Return the factory of the closures around another callable than a function."""
        del target

        def wrap(function: Callable[..., Any], *, bound: bool = False) -> Callable[..., Any]:
            del bound
            return wrap_inside(self, function, "function")

        return wrap
