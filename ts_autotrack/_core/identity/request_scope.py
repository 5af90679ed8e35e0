"""The public blocks around a request: request_scope, and OpenRequest for work in several steps."""

from __future__ import annotations

from ts_autotrack._core.identity.blocks import Block
from ts_autotrack._core.identity.request import Request
from ts_autotrack._core.identity.request_view import RequestView
from ts_autotrack._core.identity.scope import current, restore, root, set_current

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

    from ts_autotrack._core.identity.baggage import Headers
    from ts_autotrack._core.identity.request import Context, Resolver
    from ts_autotrack._core.identity.scope import BlockEntry, Scope


class request_scope(Block):  # noqa: N801 - used like a function, as contextlib's are
    """Give one request, message or job an identity of its own.

    The block starts with nobody, even inside another user's block. `bind_user` and `clear_user` inside set its user
    from anywhere: a child task, a thread-pool call, a dependency, a generator. Work started inside goes on with this
    user. The next request on the same thread, task or connection sees nothing of it. The integrations of web
    frameworks open this block; a server or consumer of your own opens it around each request or message.

    An event captured before anybody is known waits for the end of the request: a login view's own event belongs to the
    user who logged in. Such events count as pending, 1,000 of them per request at most. If nobody is known at the end,
    they are `unattributed`.

    Args:
        resolver: Callable without arguments that names the user, asked at the first event, on the caller's thread. It
            returns a user id, a pair `(user_id, group_id)`, a mapping of `user_context`'s arguments, or None if nobody
            is known yet; then it is asked again at the next event. It may be a coroutine function if the block is an
            `async with`: its events wait for the end of the request; `current_user()`, and tasks published inside, have
            no user until it has been awaited. An exception is logged and never reaches the request.
        context: Values for the `context` of every event, such as `device_type` and `referrer`, or a callable that
            returns such a mapping. The callable is called once, at the first event.
        headers: Headers of the request, if it came from outside: a mapping, pairs, or a callable that returns one of
            these. Ids in their OpenTelemetry baggage are ignored, since every client can send them.

    Example:
        >>> from ts_autotrack import bind_user, request_scope, track
        >>> def handle(message):
        ...     with request_scope():
        ...         bind_user(message["user"], group_id=message["account"])
        ...         track("message_handled")
        >>> handle({"user": "user_123", "account": "account_456"})
    """

    __slots__ = ("_arguments",)

    def __init__(
        self,
        resolver: Resolver | None = None,
        *,
        context: Context | None = None,
        headers: Headers | Callable[[], Headers] | None = None,
    ) -> None:
        self._entered = []  # not by the base class: each call counts in each request
        self._arguments = resolver, context, headers

    def begin(self) -> OpenRequest:
        """Begin a request that is worked at in several steps, and return it.

        Example:
            >>> from ts_autotrack import request_scope
            >>> request = request_scope().begin()
            >>> with request:
            ...     pass  # a step
            >>> request.end()
        """
        return OpenRequest(Request(*self._arguments))

    def inner(self, outer: Scope) -> Scope:
        """Return the scope of a new request."""
        return RequestView(Request(*self._arguments), suppressed=_is_suppressed(outer))

    def leave(self, entry: BlockEntry) -> None:
        """End the request of one entering."""
        if isinstance(entry.scope, RequestView):
            entry.scope.actor.request.end()
        self._forget(entry)
        if restore(entry.token):  # blocks inside that are still open end with the request
            entry.detach()
        else:  # left in another context: the entering context goes on with nobody
            entry.close()
            entry.outer, entry.block = root, None

    async def __aexit__(self, *_: object) -> None:
        entry = self.entry_to_leave()
        if entry is None:
            return
        try:
            if isinstance(entry.scope, RequestView):
                await entry.scope.actor.request.aend()
        finally:
            self.leave(entry)


class OpenRequest:
    """A request that is worked at in several steps: each `with` is a step, in any thread or task.

    Made by `request_scope(...).begin()`. End it by `end()`, or by `await aend()` if the resolver is async. A step ends
    in the context in which it began.
    """

    __slots__ = ("_request", "_tokens", "_view")

    def __init__(self, request: Request) -> None:
        self._request = request
        self._view = RequestView(request)
        self._tokens: list[Token[Scope]] = []

    def __enter__(self) -> OpenRequest:  # noqa: PYI034 - typing.Self came with 3.11
        outer = current()
        suppressed = outer.suppressed and _is_suppressed(outer)
        self._tokens.append(set_current(RequestView(self._request, suppressed=True) if suppressed else self._view))
        return self

    def __exit__(self, *_: object) -> None:
        for token in self._tokens[::-1]:  # other threads may be at steps of their own
            if restore(token):
                self._tokens.remove(token)
                return

    def end(self) -> None:
        """End the request: events that wait for a user get the user known now. Never raises, also if called again."""
        if self._request.held:
            with self:  # work of the resolver belongs to the request
                self._request.end()
        else:
            self._request.end()

    async def aend(self) -> None:
        """Do the same, after awaiting an async resolver if events wait for a user."""
        if self._request.held:
            with self:
                await self._request.aend()
        else:
            self._request.end()

    async def settle(self) -> None:
        """Await an async resolver now, if events wait for a user: in a long-lived connection, for example."""
        await self._request.settle()


def _is_suppressed(outer: Scope) -> bool:
    """Return True inside an open `suppress` block; an ended block may still be seen in the context of a connection."""
    entry = outer.entry
    return outer.suppressed and (entry is None or entry.block is not None)
