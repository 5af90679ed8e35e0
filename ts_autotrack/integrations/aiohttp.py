"""aiohttp servers: a request scope around each request of an application.

Example:
    ::

        app = web.Application(middlewares=[tracking_middleware(user=lambda request: request.get("user"))])
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.payload import Payload
from aiohttp.web import HTTPException, StreamResponse, middleware

from ts_autotrack import current_user, register_response, request_scope
from ts_autotrack.integrations._http import AutomaticRequest, FeatureRoutes, request_context, take_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp.typedefs import Handler, Middleware
    from aiohttp.web import Request

    from ts_autotrack.typing import Identity

_key = getattr(web, "RequestKey", None)  # aiohttp 3.14 and newer warn of other keys
_MARK: Any = _key("ts_autotrack.request", bool) if _key else "ts_autotrack.request"
"""Key of a request that has a request scope already."""


def tracking_middleware(
    user: Callable[[Request], Identity | Awaitable[Identity]] | None = None,
    *,
    features: Mapping[str, str] | None = None,
    trust_baggage: bool = False,
) -> Middleware:
    """Return a middleware that gives each request of an aiohttp application an identity of its own.

    The request consists of the middlewares after this one, the handler, a websocket, and a response that the handler
    writes or whose body is an asynchronous iterator. `bind_user` anywhere inside names the user of the whole request.
    Put the middleware first. In a sub-application of an application with this middleware, a second one does nothing.
    Tracked handlers that return a response with a status of 400 or more send no event.

    Args:
        user: Callable that takes the request and returns who acts: a user id, `(user_id, group_id)`, a mapping of the
            arguments of `user_context`, or None if nobody is known yet; sync or async. The first event of the request
            asks a sync callable. An async callable is awaited at the end of the request, if there was an event; in a
            websocket request, and before a body that is an iterator, in any case and at once.
        features: Names of features by "METHOD /path", or "* /path" for all methods, the path as in the route, without
            regular expressions, and with the prefix of a sub-application: `{"POST /reports/{id}": "report_export"}`.
            The event is sent when the handler returns a response below 400, or raises one (a redirect).
        trust_baggage: True to accept ids in the request's own `baggage` header. Any client can send this header.

    Raises:
        TypeError: `user` is not callable.
        ValueError: A key or a name in `features` is not valid.

    Example:
        >>> from aiohttp import web
        >>> from ts_autotrack.integrations.aiohttp import tracking_middleware
        >>> app = web.Application(middlewares=[tracking_middleware(user=lambda request: request.get("user"))])
    """
    if user is not None and not callable(user):
        message = f"user={user!r}: expected a callable that takes the request"
        raise TypeError(message)
    return make_middleware(user, FeatureRoutes(features), trust_baggage=trust_baggage)


def make_middleware(
    user: Callable[[Request], Any] | None,
    features: FeatureRoutes,
    *,
    trust_baggage: bool = False,
    automatic: bool = False,
) -> Middleware:
    """Return the middleware.

    Args:
        user: The resolver.
        features: Features by route.
        trust_baggage: True to accept ids in the request's own `baggage` header.
        automatic: True if no code of the application adds the middleware: one inside takes the request over.
    """
    asks = inspect.iscoroutinefunction(user) or inspect.iscoroutinefunction(getattr(user, "__call__", None))  # noqa: B004 - not whether, but which
    routes = features or None

    @middleware
    async def track_request(request: Request, handler: Handler) -> StreamResponse:
        if _MARK in request and (automatic or not take_over(request[_MARK])):
            return await handler(request)
        request[_MARK] = mark = AutomaticRequest(features) if automatic else True
        scope = request_scope(
            None if user is None else partial(user, request),
            context=partial(request_context, request.headers),
            headers=None if trust_baggage else request.headers,
        ).begin()
        streams = False
        try:
            with scope:
                if asks and request.headers.get("Upgrade", "").lower() == "websocket":
                    await _settle(scope)
                response = await _handle(request, handler, routes, mark)
                has_iterator = isinstance(getattr(response, "body", None), Payload)
                if has_iterator and asks:
                    await _settle(scope)  # a client may go away meanwhile, which ends the request here
                streams = has_iterator
        finally:
            if not streams:
                await scope.aend()
        if streams:
            _continue(scope)
        return response

    register_response(StreamResponse, lambda response, _: response.status)
    return track_request


async def _handle(request: Request, handler: Handler, routes: FeatureRoutes | None, mark: object) -> StreamResponse:
    """Return the handler's response, and record the feature of the route."""
    if routes is None:
        return await handler(request)
    try:
        response = await handler(request)
    except HTTPException as answer:
        _record(request, answer, routes, mark)
        raise
    _record(request, response, routes, mark)
    return response


def _record(request: Request, response: object, routes: FeatureRoutes, mark: object) -> None:
    if getattr(mark, "taken_over", False):
        return
    resource = getattr(request.match_info.route, "resource", None)  # None for answers of the router itself
    if resource is not None and isinstance(response, StreamResponse):
        routes.record(request.method, resource.canonical, response.status)


async def _settle(scope: Any) -> None:
    """Ask an async resolver now."""
    current_user()
    await scope.settle()


def _continue(scope: Any) -> None:
    """Stay inside the request until the end of its task: aiohttp reads the body after all middlewares."""
    task = asyncio.current_task()
    if task is None:
        scope.end()
        return
    scope.__enter__()  # in the context of this one request: aiohttp handles each request in a task of its own
    task.add_done_callback(lambda _: scope.end())
