"""Flask 2.3 and newer: a request scope around each request of an application.

Example:
    ::

        Tracking(app, user=lambda: (g.user.id, g.user.account_id) if g.user else None)
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import current_app, has_request_context, request, request_finished, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from ts_autotrack import current_user, register_response
from ts_autotrack.integrations._http import FeatureRoutes
from ts_autotrack.integrations._takeover import REQUEST
from ts_autotrack.integrations.wsgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import CodeType

    from _typeshed.wsgi import WSGIEnvironment
    from flask import Flask

    from ts_autotrack.typing import Identity

EXTENSION = "ts_autotrack"
"""Key of `app.extensions`: the extension, and its middleware."""
_ASKED = "ts_autotrack.asked"
"""Key of the environ of a request in which `user` was asked and may have named nobody: events may wait."""
_DEEPEST = 50
"""Decorators taken off a view function; a circle of `__wrapped__` has no end."""


class Tracking:
    """Flask extension: names the user of each request once, and sends the features that routes stand for.

    The extension wraps `app.wsgi_app`, so `before_request` functions, views, error handlers, teardown functions and the
    body's iteration all belong to the request. Tracked functions that return a response with a status of 400 or more
    send no event; neither do view functions that return `(body, status)` with such a status. View functions are found
    under decorators that use `functools.wraps`.

    Args:
        app: The application; without one, call `init_app` later.
        user: Callable without arguments that returns who acts: a user id, `(user_id, group_id)`, a mapping of the
            arguments of `user_context`, or None if nobody is known yet. The first event of the request asks, inside
            Flask's request context. A stream runs after this context: before a stream `user` is asked in any case.
        features: Names of features by "METHOD /rule", or "* /rule" for all methods, the rule in Flask's syntax:
            `{"POST /reports/<int:id>/export": "report_export"}`. The event is sent after a response below 400.
        trust_baggage: True to accept ids in the request's own `baggage` header. Any client can send this header.

    Raises:
        TypeError: `user` is a coroutine function; Flask cannot await it.
        ValueError: A key or a name in `features` is not valid.
    """

    def __init__(
        self,
        app: Flask | None = None,
        user: Callable[[], Identity] | None = None,
        *,
        features: Mapping[str, str] | None = None,
        trust_baggage: bool = False,
    ) -> None:
        if inspect.iscoroutinefunction(user):
            message = "user= must be a plain function: Flask cannot await a coroutine"
            raise TypeError(message)
        self._user = user
        self._features = FeatureRoutes(features) or None
        self._trust_baggage = trust_baggage
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Add the extension to an application; a second time changes nothing."""
        register_response(Response)
        register_response(HTTPException, _status_of_exception)
        register_response(tuple, _status_of_tuple)
        if EXTENSION in app.extensions:
            if app.extensions[EXTENSION][0] is not self:
                message = (
                    "app %r has a Tracking extension already: a second one is ignored, with its user= and features="
                )
                logging.getLogger("ts_autotrack").warning(message, app.name)
            return
        user = self._user and partial(_ask, self._user, app)
        middleware = _Middleware(app.wsgi_app, user, trust_baggage=self._trust_baggage)
        middleware.flask = app
        app.extensions[EXTENSION] = self, middleware  # holds the receivers, which the signals refer to weakly
        app.wsgi_app = middleware  # type: ignore[method-assign]
        request_finished.connect(self._finished, app)

    def _finished(self, app: Flask, response: Response, **_: object) -> None:
        """Act on the final response, inside the request."""
        now = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - documented; ten times cheaper
        opener, opened = now.environ.get(REQUEST, (None, None))
        if opened is None:
            return  # `test_request_context` and the like
        own, streamed = opener is app.extensions[EXTENSION][1], response.is_streamed
        rule = now.url_rule
        # Flask itself answers OPTIONS, which browsers send before a request to another site.
        if self._features is not None and rule is not None and not (now.method == "OPTIONS" and _answers_options(rule)):
            record = partial(self._features.record, now.method, rule.rule, response.status_code)
            if own and streamed:
                opened.on_success = record
            else:
                record()
        runs_later = streamed and not response.direct_passthrough
        if runs_later or _ASKED in now.environ:
            current_user()  # asks now, after a login: neither a stream nor the request's end has a request context
        if own and not runs_later:
            # The functions of `call_on_close` run when the server closes the response.
            opened.complete = not (streamed or getattr(response, "_on_close", True))


class _Middleware(TrackingMiddleware):
    flask: Flask

    def context(self, environ: WSGIEnvironment) -> dict[str, object]:
        """Return the context of the request's events, and the id of a session that is kept by the server."""
        context = super().context(environ)
        if not isinstance(self.flask.session_interface, SecureCookieSessionInterface) and has_request_context():
            key = getattr(session, "sid", None)  # Flask-Session's
            if isinstance(key, str) and key:
                context["session_id"] = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32]
        return context


def _ask(user: Callable[[], Identity], app: Flask, environ: WSGIEnvironment) -> Identity:
    """Return the answer of `user`; None outside of the request context of its own application."""
    # The proxy's own comparison takes three times as long.
    own = has_request_context() and current_app._get_current_object() is app  # type: ignore[attr-defined]  # noqa: SLF001
    environ[_ASKED] = True
    answer = user() if own else None
    if _names_somebody(answer):
        environ.pop(_ASKED, None)
    return answer


def _names_somebody(answer: object) -> bool:
    """Return True for an id, alone or in a pair with a group; False for None and for all other forms."""
    first = answer[0] if type(answer) is tuple and answer else answer
    return type(first) is int or (type(first) is str and bool(first.strip()))


def _answers_options(rule: object) -> bool:
    return getattr(rule, "provide_automatic_options", False) is True


def _status_of_exception(result: HTTPException, _: CodeType) -> int | None:
    return result.code


def _status_of_tuple(result: tuple[Any, ...], code: CodeType) -> int | None:
    """Return the status of `(body, status)` or `(body, status, headers)` if the current view function returned it."""
    if len(result) not in {2, 3} or not has_request_context():
        return None
    if not any(code is own for own in _codes_of_view()):  # wrappers of equal argument lists have equal code
        return None
    body, status = result[:2]
    if status is None or (len(result) == 2 and isinstance(status, (Headers, dict, list, tuple))):  # noqa: PLR2004
        return getattr(body, "status_code", None)  # (body, headers)
    return Response(status=status).status_code  # reads all forms that Flask reads


def _codes_of_view() -> Iterator[CodeType | None]:
    """Return the code objects of the current view function and of the functions that it wraps."""
    view = current_app.view_functions.get(request.endpoint or "")
    view_class = getattr(view, "view_class", None)
    method = "get" if request.method == "HEAD" else request.method.lower()
    for function in (view, getattr(view_class, method, None), getattr(view_class, "dispatch_request", None)):
        for _ in range(_DEEPEST):
            if function is None:
                break
            yield getattr(function, "__code__", None)
            function = getattr(function, "__wrapped__", None)  # noqa: PLW2901 - one more decorator off
