"""Who is acting, as a capture finds it when it asks, and the blocks that say so for a stretch of work.

A `Scope` is not changed once it is current, so a reference to it is a snapshot of the identity at that moment. A
block keeps next to no state: the current scope knows the block that made it and the scope around that, so a block may
be shared by tasks, nested in itself, and left in another context than it was entered in.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial

from ts_autotrack import _baggage
from ts_autotrack._functions import decorate, drop_frame, first_step
from ts_autotrack._values import snapshot

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping
    from contextvars import Token
    from typing import Any, TypeVar

    from ts_autotrack._events import Actor
    from ts_autotrack._functions import Kind, Wrap

    F = TypeVar("F")

_NOTHING: dict[str, object] = {}


class Scope:
    """The identity, context and properties that hold for a stretch of work.

    Attributes:
        ready: Whether a capture may take this scope as it is: user and group known, not suppressed, not closed.
        muted: Whether a capture may take it that the scope is suppressed: so it is, and not closed.
        owner: The block that made it, None outside of every block.
        outer: The scope to go back to when that block ends.
        unbound: The scope without what `bind_user` bound, if that made this one; else None.
        origin: The scope that the block made, if this one replaced it (`bind_user` inside the block); else None.
            Not the scope itself: that would keep each of them, and what it holds, until a garbage collection.
        encoded: What the worker has encoded of it.
        token: Undoes the entering, in the context that entered.
        filled: The last OpenTelemetry context and the scope that its baggage made of this one.
    """

    __slots__ = (
        "closed",
        "context",
        "encoded",
        "filled",
        "group_id",
        "muted",
        "origin",
        "outer",
        "owner",
        "properties",
        "ready",
        "suppressed",
        "token",
        "unbound",
        "user_id",
    )

    def __init__(
        self,
        user_id: str | None = None,
        group_id: str | None = None,
        context: dict[str, object] = _NOTHING,
        properties: dict[str, object] = _NOTHING,
        *,
        suppressed: bool = False,
    ) -> None:
        self.user_id = user_id
        self.group_id = group_id
        self.context = context
        self.properties = properties
        self.suppressed = self.muted = suppressed
        self.ready = user_id is not None and group_id is not None and not suppressed
        self.closed = False
        self.owner: ScopeBlock | None = None
        self.outer: Scope | None = None
        self.origin: Scope | None = None
        self.unbound: Scope | None = None
        self.filled: tuple[object, Scope] | None = None
        self.token: Token[Scope] | None = None
        self.encoded: Actor | None = None

    def derive(
        self,
        user_id: object = None,
        group_id: object = None,
        context: Mapping[str, object] = _NOTHING,
        properties: Mapping[str, object] = _NOTHING,
    ) -> Scope:
        """Return a scope with these values over this one's.

        An id that is given but is none, such as an empty text, means nobody: never whoever acts around it.
        """
        return Scope(
            self.user_id if user_id is None else as_id(user_id),
            self.group_id if group_id is None else as_id(group_id),
            {**self.context, **snapshot(context)} if context else self.context,
            {**self.properties, **snapshot(properties)} if properties else self.properties,
            suppressed=self.suppressed,
        )

    def close(self) -> None:
        """End the scope for those who still hold it: they go on with the one around it."""
        self.closed, self.ready, self.muted, self.token = True, False, False, None

    def resolve(self) -> Scope:
        """Return what a capture is to use: the nearest open scope, with the ids that it lacks from baggage."""
        scope = nearest_open(self)
        if scope.suppressed or (scope.user_id and scope.group_id):
            return scope
        return _baggage.fill(scope)


def nearest_open(scope: Scope) -> Scope:
    """Return `scope`, or the nearest one around it whose block has not ended."""
    while (scope.origin or scope).closed and scope.outer is not None:
        scope = scope.outer
    return scope


def as_id(value: object) -> str | None:
    """Return an id as the text that the contract asks for; None for what is no id. Never raises.

    Texts, numbers, UUIDs and whatever else says what it is; not what only says where it lies in memory, and no bytes.
    """
    try:
        if isinstance(value, str):
            text = str.__str__(value)
        elif isinstance(value, (bool, bytes, bytearray, type(None))) or _is_nameless(type(value)):
            return None
        else:
            text = str(value)
        return text.strip() or None
    except Exception:  # noqa: BLE001 - a user's __str__
        return None


def _is_nameless(kind: type) -> bool:
    own: Any = object
    return kind.__str__ is own.__str__ and kind.__repr__ is own.__repr__


_current: ContextVar[Scope] = ContextVar("ts_autotrack_scope", default=Scope())  # noqa: B039 - not changed once it is current
current = _current.get


def replace(scope: Scope, bound: Scope) -> None:
    """Make `bound` current in the place of `scope`, for as long as that would have been."""
    bound.owner, bound.outer = scope.owner, scope.outer
    if scope.owner is not None:
        bound.origin = scope.origin or scope
    _current.set(bound)


def _restore(token: Token[Scope] | None) -> bool:
    """Undo the `set` that gave `token`; return False if that happened in another context."""
    try:
        if token is not None:
            _current.reset(token)
    except ValueError:
        return False
    return True


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
        scope.token = _current.set(scope)
        return scope

    def leave(self, origin: Scope) -> None:
        """End the scope that `enter` gave, wherever this is called."""
        if origin in self._entered:  # not if it was left in a copy of the context already
            self._entered.remove(origin)
        now = current()
        if (now.origin or now) is not origin or origin.outer is None:
            origin.close()  # left in another context, or before a block that was entered later
            return
        if not _restore(origin.token):
            origin.close()  # this is a copy of the context that entered, which goes on with the scope
        origin.owner = None  # a pending event holds the scope, and should not hold the block
        origin.token = None  # it holds the whole context, and a pending event holds the scope
        _current.set(nearest_open(origin.outer))

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
                except BaseException as thrown:  # noqa: BLE001 - the generator decides what becomes of it
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
                except BaseException as thrown:  # noqa: BLE001 - the generator decides what becomes of it
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
