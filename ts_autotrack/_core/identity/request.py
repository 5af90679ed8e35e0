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
from ts_autotrack._core.identity.baggage import Distrusted
from ts_autotrack._core.identity.scope import Scope, nearest_open

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any, TypeAlias

    from ts_autotrack._core.identity.baggage import Headers
    from ts_autotrack.typing import Identity, IdentitySource

    Resolver: TypeAlias = Callable[[], Identity | Awaitable[Identity]]
    Context: TypeAlias = Mapping[str, object] | Callable[[], Mapping[str, object]]

MAX_FAILURES = 5
"""Exceptions of a resolver in one request until it is asked no more."""

_NOTHING: dict[str, object] = {}
_NOBODY = Scope()


def _keep(request: Request) -> None:
    """Stand in for the hook that releases held records."""


on_release: Callable[[Request], None] = _keep
"""Called with a request whose held records are to be recorded with the identity known now. Capture sets this hook."""


class Request:
    """One request: its resolver, its own context, and the records that wait for an identity.

    The actor refers to the request, never the request to its actor: a cycle would leave the framework's request object
    to the garbage collector.

    Attributes:
        distrusted: The baggage that came in with the request; None if all baggage is trusted.
        ended: True after the end of the request.
        held: Records captured before anybody was known.
    """

    __slots__ = (
        "_asking",
        "_awaitable",
        "_base",
        "_context",
        "_failures",
        "_resolver",
        "distrusted",
        "ended",
        "held",
    )

    def __init__(
        self,
        resolver: Resolver | None = None,
        context: Context | None = None,
        headers: Headers | Callable[[], Headers] | None = None,
    ) -> None:
        self.distrusted = None if headers is None else Distrusted(headers)
        self.ended = False
        self.held: deque[Any] = deque()
        self._resolver = resolver
        self._context = context
        self._base: Scope | None = None
        self._failures = 0
        self._asking = False
        self._awaitable: Awaitable[Identity] | None = None

    @property
    def base(self) -> Scope:
        """The scope of the request with nobody acting."""
        if self._base is None:
            context: Any = self._context
            self._context = None  # another thread may read the context at the same time, and then has none
            values: Any = None
            try:
                values = context() if callable(context) else context
            except Exception as error:  # noqa: BLE001 - the application's callable
                warn_once(
                    ("context", type(error)),
                    f"the context= callable of a request scope raised {type(error).__name__}; the request's events are "
                    "sent without its values",
                )
            self._base = _NOBODY.derive(context=values) if values else Scope()
        return self._base

    def ask(self) -> Scope | None:
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

    async def settle(self, actor: Actor) -> None:
        """Await the answer of an async resolver for the request's actor, if an event has asked for it."""
        awaitable, self._awaitable = self._awaitable, None
        if awaitable is None:
            return
        try:
            scope = self._scope_of(await awaitable)
            actor.found(scope)
            if scope is not None:
                on_release(self)  # a websocket may stay open for days
        except Exception as error:  # noqa: BLE001 - the application's resolver
            self._failed(error)
        finally:
            self._asking = False

    def end(self, actor: Actor) -> None:
        """Give held records the identity known now of the request's actor. Never raises."""
        if self.ended:
            return
        if self.held:
            actor.scope()
        self.ended = True
        self._resolver = None
        awaitable: Any = self._awaitable
        if awaitable is not None:
            self._awaitable = None
            if hasattr(awaitable, "close"):
                awaitable.close()  # Python warns of a coroutine that nobody awaits
            warn_once("resolver", _NOT_AWAITED)
        on_release(self)

    async def aend(self, actor: Actor) -> None:
        """Do the same, after awaiting an async resolver if events wait for an identity."""
        try:
            if self.held and not self.ended:
                actor.scope()
                await self.settle(actor)
                self._resolver = None
        finally:
            self.end(actor)

    def _scope_of(self, answer: object) -> Scope | None:
        values = identity_of(answer)
        scope = None if values is None else self.base.derive(*values, source="resolver")
        return scope if scope is not None and scope.user_id else None

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        warn_once(
            ("resolver", type(error)),
            f"the resolver of a request scope raised {type(error).__name__}; the request's events wait for another "
            "answer or `bind_user`, and are counted as 'unattributed' without one",
        )


class Actor:
    """The acting user of a request, or of a block inside a request. `bind_user` and `clear_user` write here.

    Attributes:
        request: The request.
        cleared: True after `clear_user`, until a user is bound again.

    Args:
        request: The request.
        find: Returns the scope of the user whom a block names; None for the actor of the request itself.
    """

    __slots__ = ("_added", "_bound", "_find", "_found", "_merged", "cleared", "request")

    def __init__(self, request: Request, find: Callable[[], Scope | None] | None = None) -> None:
        self.request = request
        self.cleared = False
        self._find = find
        self._found: Scope | None = None
        self._bound: Scope | None = None
        self._added: Scope | None = None
        self._merged: tuple[Scope, Scope, Scope] | None = None

    def scope(self, *, asking: bool = True) -> Scope:
        """Return the scope of the acting user; the request's own scope if nobody is known.

        Args:
            asking: True to ask the resolver, if nobody is known.
        """
        known = self._bound or self._found
        if known is None:
            if asking:
                self.found((self._find or self.request.ask)())
            known = self._bound or self._found or self.request.base
        added = self._added
        if added is None:
            return known
        merged = self._merged
        if merged is None or merged[0] is not known or merged[1] is not added:
            scope = known.derive(None, added.group_id, added.context, added.properties)
            merged = self._merged = known, added, scope
        return merged[2]

    def found(self, scope: Scope | None) -> None:
        """Take the answer of the resolver, unless somebody was bound meanwhile."""
        if scope is not None and not self.cleared:
            self._found = self._found or scope

    def bind(
        self, user_id: object, group_id: object, context: Mapping[str, object], properties: dict[str, Any]
    ) -> None:
        """Do the work of `bind_user`."""
        if user_id is None:
            self._added = (self._added or _NOBODY).derive(None, group_id, context, properties)
            return
        known = self.scope(asking=False)
        around = self._found or (self.request.base if self._find is None else self.scope())
        bound = around.derive(user_id, group_id, context, properties, "bind_user")
        if known.user_id not in (None, bound.user_id):
            on_release(self.request)  # these events happened before another user took over
        self._bound, self._added, self.cleared = bound, None, False

    def clear(self) -> None:
        """Do the work of `clear_user`."""
        on_release(self.request)
        self._bound, self._found, self._added, self.cleared = self.request.base, None, None, True


class RequestView(Scope):
    """Scope inside a request: a reference to the acting user, resolved at each capture.

    Attributes:
        actor: The acting user.
        overlay: Values of blocks around that name no user; None without such a block.
    """

    __slots__ = ("_merged", "_user_id", "actor", "overlay")

    def __init__(self, actor: Actor, overlay: Scope | None = None, *, suppressed: bool = False) -> None:
        super().__init__(suppressed=suppressed)
        self.actor = actor
        self.overlay = overlay
        self._merged: tuple[Scope, Scope] | None = None
        self._user_id = None if overlay is None else actor.scope(asking=False).user_id

    def derive(
        self,
        user_id: object = None,
        group_id: object = None,
        context: Mapping[str, object] = _NOTHING,
        properties: Mapping[str, object] = _NOTHING,
        source: IdentitySource = "user_context",
    ) -> Scope:
        """Return a scope of the same request with these values over the values of this scope."""
        if user_id is None:
            overlay = self.overlay
            if group_id is not None or context or properties:
                overlay = (overlay or _NOBODY).derive(None, group_id, context, properties)
            return RequestView(self.actor, overlay, suppressed=self.suppressed)
        named = _NOBODY.derive(user_id, group_id, context, properties)  # a snapshot, taken now

        def find() -> Scope | None:
            return self.known().derive(named.user_id or "", named.group_id, named.context, named.properties, source)

        return RequestView(Actor(self.actor.request, find), suppressed=self.suppressed)

    def suppress(self) -> Scope:
        """Return this scope with its events dropped."""
        return RequestView(self.actor, self.overlay, suppressed=True)

    def resolve(self) -> Scope:
        """Return the scope for a capture; this scope itself if the event has to wait until somebody is known."""
        scope = nearest_open(self)
        if scope is not self:
            return scope.resolve()
        if self.suppressed:
            return self
        known = self.known()
        if not (known.user_id and known.group_id):
            known = known.filled(self.actor.request.distrusted)
        return self if known.user_id is None and self.waits else known

    def resolve_later(self) -> Scope:
        """Return the scope for the end of work that began inside: baggage belongs to others by now."""
        if self.suppressed:
            return self
        known = self.known()
        return self if known.user_id is None and self.waits else known

    def known(self, *, asking: bool = True) -> Scope:
        """Return the scope of the acting user, as far as it is known."""
        scope, overlay = self.actor.scope(asking=asking), self.overlay
        if overlay is None:
            return scope
        merged = self._merged
        if merged is None or merged[0] is not scope:
            self._user_id = self._user_id or scope.user_id
            if scope.user_id == self._user_id:
                over = scope.derive(None, overlay.group_id, overlay.context, overlay.properties)
            else:  # another user than the user at the beginning of the block
                over = scope.derive(None, None, overlay.of_request().context)
            merged = self._merged = scope, over
        return merged[1]

    @property
    def waits(self) -> bool:
        """True if an event without a user has to wait: somebody may become known."""
        return not (self.actor.request.ended or self.actor.cleared)


_NOT_AWAITED = (
    "the resolver of a request scope is async, but the request ended without `async with` or `await request.aend()`: "
    "its events have no user. Give a resolver that is no coroutine function, or use `async with`."
)
