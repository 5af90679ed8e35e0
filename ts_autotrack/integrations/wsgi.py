"""WSGI: a request scope around each request of any WSGI application.

Example:
    ::

        application = TrackingMiddleware(application, user=lambda environ: environ.get("REMOTE_USER"))
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

from ts_autotrack import request_scope
from ts_autotrack.integrations._http import CGI_HEADERS, FeatureRoutes, request_context
from ts_autotrack.integrations._takeover import REQUEST, around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ts_autotrack.typing import Identity


class TrackingMiddleware:
    """Opens a request scope around the application's call, each step of the body's iteration, and the body's `close`.

    A middleware inside another one does nothing: each request is opened once. Lists, tuples and results of
    `wsgi.file_wrapper` are returned as they are, since servers treat them specially; the request ends before.

    Args:
        app: The WSGI application.
        user: Callable that receives the environ and returns who acts: a user id, `(user_id, group_id)`, a mapping of
            the arguments of `user_context`, or None if nobody is known yet. The first event of the request asks.
        features: Names of features by "METHOD /path", or "* /path" for all methods. WSGI has no route templates: the
            path is compared literally (`SCRIPT_NAME` and `PATH_INFO`). The event is sent at the end of a response whose
            status is below 400.
        trust_baggage: True to accept ids in the request's own `baggage` header. Any client can send this header.

    Raises:
        TypeError: `user` is a coroutine function; WSGI cannot await.
        ValueError: A key or a name in `features` is not valid.
    """

    automatic = False
    """True if no code of the application has added the middleware: a middleware inside takes the request over."""
    knows_user = True
    """False for an automatic middleware without a resolver that could know a user."""

    def __init__(
        self,
        app: WSGIApplication,
        user: Callable[[WSGIEnvironment], Identity] | None = None,
        *,
        features: Mapping[str, str] | None = None,
        trust_baggage: bool = False,
    ) -> None:
        if inspect.iscoroutinefunction(user):
            message = "user= must be a plain function: WSGI cannot await a coroutine"
            raise TypeError(message)
        self._app = app
        self._user = user
        self._features = FeatureRoutes(features) or None
        self._trust_baggage = trust_baggage

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        opened = environ.get(REQUEST)
        if opened is not None and (opened[0] is self or not opened[0].automatic):
            return self._app(environ, start_response)
        if self.automatic and ((by_hand := around.get()) or (by_hand is False and not self.knows_user)):
            return self._app(environ, start_response)
        user, headers = self._user, None if self._trust_baggage else partial(_headers, environ)
        scope = request_scope(user and partial(user, environ), context=partial(self.context, environ), headers=headers)
        request = scope.begin()
        response = OpenResponse(request, environ)
        environ[REQUEST] = self, response
        if self._features is not None:
            start_response = response.watch(start_response, self._features)
        try:
            with request:
                body = self._app(environ, start_response)
        except BaseException:
            response.end()
            raise
        return response.send(body)

    def context(self, environ: WSGIEnvironment) -> dict[str, object]:
        """Return the context of the request's events; asked by the first event."""
        return request_context(environ, CGI_HEADERS)


class OpenResponse:
    """Response to one request: the body whose steps run inside the request, and the end of the request.

    Attributes:
        on_success: Called once inside the request when the response is complete, or closed early by the client.
        complete: True if the body is all there: its iteration and its `close` run no code of the application, and the
            request ends before. Test clients close no response.
    """

    __slots__ = ("_around", "_body", "_environ", "_request", "_steps", "complete", "on_success")

    def __init__(self, request: Any, environ: WSGIEnvironment) -> None:
        self.on_success: Callable[[], None] | None = None
        self.complete = False
        self._request = request
        self._environ = environ
        self._around = environ.get(REQUEST)  # of an automatic middleware
        self._body: Iterable[bytes] = ()
        self._steps: Iterator[bytes] | None = None

    def watch(self, start_response: StartResponse, features: FeatureRoutes) -> StartResponse:
        """Return a `start_response` that takes the status for the event of the route's feature."""
        path = self._environ.get("SCRIPT_NAME", "") + self._environ.get("PATH_INFO", "")
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")  # WSGI's form of a path's bytes
        record = partial(features.record, self._environ.get("REQUEST_METHOD", "GET"), path)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            write = start_response(status, headers, *exc_info)
            code = status[:3]
            self.on_success = partial(record, int(code)) if code.isdecimal() else None
            return write

        return start

    def send(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return the body for the server."""
        if self.complete:
            self.end()
            return body
        if _is_for_the_server(body, self._environ):
            self._succeed()
            self.end()
            return body
        self._body = body
        return self

    def __iter__(self) -> Iterator[bytes]:
        with self._request:
            self._steps = iter(self._body)
        return self

    def __next__(self) -> bytes:
        try:
            with self._request:
                if self._steps is None:
                    self._steps = iter(self._body)
                return next(self._steps)
        except StopIteration:
            self._succeed()  # not every test client closes a body
            raise
        except BaseException:
            self.on_success = None  # a response cut off by an error is no success
            raise

    def close(self) -> None:
        """End the request after the body's own `close`."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                with self._request:
                    close()
        finally:
            self._succeed()
            self.end()

    def _succeed(self) -> None:
        on_success, self.on_success = self.on_success, None
        if on_success is not None:
            with self._request:
                on_success()

    def end(self) -> None:
        """End the request; a second time changes nothing."""
        self._request.end()
        if self._around is not None:
            self._environ[REQUEST] = self._around
        else:
            self._environ.pop(REQUEST, None)  # a test may call an application twice with one environ


def _is_for_the_server(body: object, environ: WSGIEnvironment) -> bool:
    """Return True for a body that servers treat specially: of known length, or a file."""
    wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(wrapper, type):
        return isinstance(body, (list, tuple, wrapper))
    # uWSGI's wrapper is a function that returns the file.
    return isinstance(body, (list, tuple)) or (wrapper is not None and hasattr(body, "fileno"))


def _headers(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the headers of the request, by name in lower case."""
    prefix = "HTTP_"
    return {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith(prefix)}
