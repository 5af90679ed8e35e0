"""ASGI applications: FastAPI, Starlette, Litestar, Quart and others."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ts_autotrack import register_response, request_scope
from ts_autotrack.integrations._asgi_routes import RouteFinder
from ts_autotrack.integrations._http import CONTEXT_HEADERS, FeatureRoutes, header_texts, request_context
from ts_autotrack.integrations._takeover import REQUEST, around, take_over

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from contextlib import AbstractContextManager
    from contextvars import Token

    from ts_autotrack.typing import Identity

Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application: scope, receive, send. Each framework has types of its own for these."""
Send: TypeAlias = Callable[[Any], Awaitable[None]]

_NAMES = {name.encode("ascii"): name for name in CONTEXT_HEADERS}
_BODIES = {"http.response.body", "http.response.pathsend", "http.response.zerocopysend"}
_RESPONSES = (
    ("starlette.responses", "Response"),
    ("litestar.response.base", "Response"),
    ("litestar.response.base", "ASGIResponse"),
    ("quart.wrappers.response", "Response"),
)
"""Modules and names of the frameworks' response classes; only loaded modules count."""

_serving: ContextVar[object] = ContextVar("ts_autotrack_asgi_request", default=None)
"""Mark of the request that the current context serves, if the request may use a feature by its route."""

_NOTHING = nullcontext()


class TrackingMiddleware:
    """Give each request and each websocket connection of an ASGI application an identity of its own.

    `bind_user` in a dependency, an endpoint, a background task or a stream holds for the whole request and ends with
    the request. The outermost middleware opens the request scope; a second one, of a mounted application, does nothing.

    Args:
        app: The ASGI application.
        user: Callable that takes the ASGI connection scope and returns the acting user; sync or async. The first event
            of a request asks it, and later events until a user is known: see `ts_autotrack.request_scope`. Without it,
            `bind_user` and `user_context` name the user.
        features: Names of features by "METHOD /template", the template in the framework's own syntax, mounted prefixes
            included. The feature is used when a response below 400 has been sent. Starlette without FastAPI tells
            the templates from version 1.7 on.
        trust_baggage: True if OpenTelemetry baggage of incoming requests may name the user.

    Raises:
        TypeError: `user` is not callable.
        ValueError: A key of `features` is not of the form "METHOD /template".

    Example:
        app = FastAPI()
        app.add_middleware(TrackingMiddleware, user=lambda scope: scope["session"].get("user_id"))
    """

    def __init__(
        self,
        app: Application,
        user: Callable[[Any], Identity | Awaitable[Identity]] | None = None,
        *,
        features: Mapping[str, str] | None = None,
        trust_baggage: bool = False,
    ) -> None:
        if user is not None and not callable(user):
            message = f"TrackingMiddleware(user={user!r}): expected a callable that takes the ASGI connection scope"
            raise TypeError(message)
        self.app = app
        self._user = user
        self._asks = inspect.iscoroutinefunction(user) or inspect.iscoroutinefunction(getattr(user, "__call__", None))  # noqa: B004 - not whether, but which
        self._features = FeatureRoutes(features)
        self._routes = RouteFinder(self._features.templates())
        self._trust_baggage = trust_baggage
        self._loaded_modules = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"} or (REQUEST in scope and not take_over(scope[REQUEST])):
            return await self.app(scope, receive, send)
        scope[REQUEST] = True
        return await self.serve(self.app, scope, receive, send)

    async def serve(self, app: Application, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection of an application as a request."""
        if len(sys.modules) != self._loaded_modules:
            self._register_responses()
        request = request_scope(
            None if self._user is None else partial(self._user, scope),
            context=partial(_context, scope),
            headers=None if self._trust_baggage else partial(_headers, scope),
        ).begin()
        if self._asks:
            receive, send = _settled_first(receive, request.settle), _settled_first(send, request.settle)
        if self._features and scope["type"] == "http":
            send = self._recording(scope, send, request)
        token = around.set(scope[REQUEST] is True)
        try:
            with request:
                return await app(scope, receive, send)
        finally:
            _reset(token)
            await request.aend()

    def _register_responses(self) -> None:
        """Register the frameworks' response classes, and the subclasses that modules loaded since have added."""
        self._loaded_modules = len(sys.modules)
        for module, name in _RESPONSES:
            kind = getattr(sys.modules.get(module), name, None)
            if isinstance(kind, type):
                register_response(kind)
        self._routes.connect()

    def _recording(
        self,
        scope: MutableMapping[str, Any],
        send: Callable[[Any], Awaitable[None]],
        request: AbstractContextManager[Any],
    ) -> Callable[[Any], Awaitable[None]]:
        """Return `send`, which also records the feature of the route, before the last part of the response."""
        routes, base, opened = self._routes, self._routes.base(scope), scope[REQUEST]
        status, mark = 0, object()
        _serving.set(mark)

        async def record_and_send(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif status and kind in _BODIES and not message.get("more_body"):
                template = None if getattr(opened, "taken_over", False) else routes.template(scope, base)
                if template is not None:
                    # Within the request, the application's own blocks count. A thread or task may be elsewhere.
                    with _NOTHING if _serving.get() is mark else request:
                        self._features.record(scope["method"], template, status)
                status = 0
            await send(message)

        return record_and_send


def _reset(token: Token[bool | None]) -> None:
    """Reset `around`, unless the request ends in another context than it began."""
    try:
        around.reset(token)
    except ValueError:
        return


def _settled_first(
    function: Callable[..., Awaitable[Any]], settle: Callable[[], Awaitable[None]]
) -> Callable[..., Any]:
    """Return a function that asks an async resolver first: a connection may wait for its next message for hours."""

    async def settle_first(*arguments: Any) -> Any:
        await settle()
        return await function(*arguments)

    return settle_first


def _context(scope: MutableMapping[str, Any]) -> dict[str, object]:
    """Return the context of a connection's events, by its headers."""
    return request_context(
        {_NAMES[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _NAMES}
    )


def _headers(scope: MutableMapping[str, Any]) -> list[tuple[str, str]]:
    """Return a connection's headers as text."""
    return header_texts(scope["headers"])
