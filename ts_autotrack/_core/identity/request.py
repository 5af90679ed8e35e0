"""The request scope: the identity of one request, message or job, which work anywhere inside can set.

A ContextVar set in a thread pool or in a child task never reaches the rest of the request, and a ContextVar set on a
reused thread reaches the next request. So the context of a request holds a reference to one mutable `Actor`, set once
at the beginning, and each capture inside asks the actor. A block inside the request that names another user has an
actor of its own.
"""

from __future__ import annotations

from collections import deque

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.identity.arguments import identity_of
from ts_autotrack._core.identity.baggage import Distrusted, distrust
from ts_autotrack._core.identity.scope import Scope

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any, TypeAlias

    from ts_autotrack._core.identity.baggage import Headers
    from ts_autotrack.typing import Identity

    Resolver: TypeAlias = Callable[[], Identity | Awaitable[Identity]]
    Context: TypeAlias = Mapping[str, object] | Callable[[], Mapping[str, object]]

MAX_FAILURES = 5
"""Exceptions of a resolver in one request until it is asked no more."""

_NOTHING: dict[str, object] = {}
NOBODY = Scope()
"""The scope of nobody, without any value."""


def _keep(request: Request) -> None:
    """Stand in for the hook that releases held records."""


on_release: Callable[[Request], None] = _keep
"""Called with a request whose held records are to be recorded with the identity known now. Capture sets this hook."""


class Actor:
    """The acting user of a request, or of a block inside a request. `bind_user` and `clear_user` write here.

    Attributes:
        cleared: True after `clear_user`, until a user is bound again.
        known: The scope of the acting user; None if nobody is known, or not yet.
    """

    __slots__ = ("_added", "_found", "_named", "cleared", "known")

    def __init__(self) -> None:
        self.cleared = False
        self.known: Scope | None = None
        self._found: Scope | None = None  # the user named at the beginning
        self._named: Scope | None = None  # the user named at the beginning or by `bind_user`
        self._added: Scope | None = None  # values of `bind_user` without a user

    @property
    def request(self) -> Request:
        """The request."""
        raise NotImplementedError  # pragma: no cover - both subclasses override this property

    def find(self) -> Scope | None:
        """Return the scope of the user whom nobody bound; None if nobody is known, or not yet."""
        raise NotImplementedError  # pragma: no cover - both subclasses override this method

    def scope(self, *, asking: bool = True) -> Scope:
        """Return the scope of the acting user; the request's own scope if nobody is known.

        Args:
            asking: True to ask the resolver, if nobody is known.
        """
        if self.known is None and asking:
            self.found(self.find())
        return self.known or self._with_added(self.request.base)

    def found(self, scope: Scope | None) -> None:
        """Take the answer of the resolver, unless somebody was bound meanwhile."""
        if scope is not None and not self.cleared:
            self._found = self._found or scope
            if self._named is None:
                self._named = scope
                self.known = scope if self._added is None else self._with_added(scope)

    def bind(
        self, user_id: object, group_id: object, context: Mapping[str, object], properties: dict[str, Any]
    ) -> None:
        """Do the work of `bind_user`."""
        if user_id is None:
            self._added = (self._added or NOBODY).derive(None, group_id, context, properties)
            if self._named is not None:
                self.known = self._with_added(self._named)
            return
        around = self._found or (self.request.base if self is self.request else self.scope())
        bound = around.derive(user_id, group_id, context, properties, "bind_user")
        if self.known is not None and self.known.user_id not in (None, bound.user_id):
            on_release(self.request)  # these events happened before another user took over
        self._added, self.cleared = None, False
        self.known = self._named = bound

    def clear(self) -> None:
        """Do the work of `clear_user`."""
        on_release(self.request)
        self._found, self._added, self.cleared = None, None, True
        self.known = self._named = self.request.base

    def _with_added(self, scope: Scope) -> Scope:
        added = self._added
        return scope if added is None else scope.derive(None, added.group_id, added.context, added.properties)


class Request(Actor):
    """One request: its acting user, its resolver, its own context, and the records that wait for an identity.

    Nothing in a request refers back to the request. With a cycle, the headers and the session of each request stayed in
    memory until a garbage collection, and a request of FastAPI took 5 us more.

    Attributes:
        ended: True after the end of the request.
        held: Records captured before anybody was known.
    """

    __slots__ = (
        "_asking",
        "_awaitable",
        "_base",
        "_context",
        "_failures",
        "_headers",
        "_resolver",
        "ended",
        "held",
    )

    def __init__(
        self,
        resolver: Resolver | None = None,
        context: Context | None = None,
        headers: Headers | Callable[[], Headers] | None = None,
    ) -> None:
        super().__init__()
        self.ended = False
        self.held: deque[Any] = deque()
        self._resolver = resolver
        self._context: Any = context
        self._headers: Any = headers
        if headers is not None:
            distrust()
        self._base: Scope | None = None
        self._failures = 0
        self._asking = False
        self._awaitable: Awaitable[Identity] | None = None

    @property
    def request(self) -> Request:
        """The request itself."""
        return self

    @property
    def base(self) -> Scope:
        """The scope of the request with nobody acting."""
        if self._base is None:
            values = self._own_context()
            self._base = NOBODY.derive(context=values) if values else Scope()
        return self._base

    @property
    def distrusted(self) -> Distrusted | None:
        """The baggage that came in with the request; None if all baggage is trusted."""
        headers = self._headers
        if headers is not None and not isinstance(headers, Distrusted):
            self._headers = Distrusted(headers)
        distrusted: Distrusted | None = self._headers
        return distrusted

    def _own_context(self) -> Mapping[str, object]:
        """Return the values of the request itself, read once."""
        context = self._context
        if callable(context):
            self._context = _NOTHING  # another thread may read at the same time, and then has none
            try:
                self._context = context()
            except Exception as error:  # noqa: BLE001 - the application's callable
                warn_once(
                    ("context", type(error)),
                    f"the context= callable of a request scope raised {type(error).__name__}; the request's events are "
                    "sent without its values",
                )
        return self._context or _NOTHING

    def find(self) -> Scope | None:
        """Ask the resolver; None if nobody is known, or not yet. Never raises."""
        if self._resolver is None or self._asking or self.ended or self._failures >= MAX_FAILURES:
            return None
        self._asking = True  # a tracked function that the resolver calls must not ask again
        try:
            answer: Any = self._resolver()
            if hasattr(type(answer), "__await__"):
                self._awaitable = answer
            else:
                return self._scope_of(answer)
        except Exception as error:  # noqa: BLE001 - the application's resolver
            self._failed(error)
        finally:
            self._asking = self._awaitable is not None
        return None

    async def settle(self) -> None:
        """Await the answer of an async resolver, if an event has asked for it."""
        awaitable, self._awaitable = self._awaitable, None
        if awaitable is None:
            return
        try:
            scope = self._scope_of(await awaitable)
            self.found(scope)
            if scope is not None:
                on_release(self)  # a websocket may stay open for days
        except Exception as error:  # noqa: BLE001 - the application's resolver
            self._failed(error)
        finally:
            self._asking = False

    def end(self) -> None:
        """Give held records the identity known now. Never raises."""
        if self.ended:
            return
        if self.held:
            self.scope()
        self.ended = True
        self._resolver = None
        awaitable: Any = self._awaitable
        if awaitable is not None:
            self._awaitable = None
            if hasattr(awaitable, "close"):
                awaitable.close()  # Python warns of a coroutine that nobody awaits
            warn_once("resolver", _NOT_AWAITED)
        if self.held:
            on_release(self)

    async def aend(self) -> None:
        """Do the same, after awaiting an async resolver if events wait for an identity."""
        try:
            if self.held and not self.ended:
                self.scope()
                await self.settle()
        finally:
            self._resolver = None  # also after a cancellation: nobody could await another answer
            self.end()

    def _scope_of(self, answer: object) -> Scope | None:
        values = identity_of(answer)
        if values is None:
            return None
        user_id, group_id, context, properties = values
        own = self._own_context()
        both = {**own, **context} if own and context else own or context
        scope = NOBODY.derive(user_id, group_id, both, properties, "resolver")
        return scope if scope.user_id else None

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        warn_once(
            ("resolver", type(error)),
            f"the resolver of a request scope raised {type(error).__name__}; the request's events wait for another "
            "answer or `bind_user`, and are counted as 'unattributed' without one",
        )


class BlockActor(Actor):
    """The acting user of a block that names a user.

    Args:
        request: The request around the block.
        find: Returns the scope of the block's user.
    """

    __slots__ = ("_find", "_request")

    def __init__(self, request: Request, find: Callable[[], Scope | None]) -> None:
        super().__init__()
        self._request = request
        self._find = find

    @property
    def request(self) -> Request:
        """The request around the block."""
        return self._request

    def find(self) -> Scope | None:
        """Return the scope of the block's user."""
        return self._find()


_NOT_AWAITED = (
    "the resolver of a request scope is async, but the request ended without `async with` or `await request.aend()`: "
    "its events have no user. Give a resolver that is no coroutine function, or use `async with`."
)
