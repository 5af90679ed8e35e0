"""Django: each request is a request scope, and `request.user` acts in it.

    MIDDLEWARE = ["ts_autotrack.integrations.django.TrackingMiddleware", ...]
    TS_AUTOTRACK = {"group": "user.account_id"}                            # optional, as is the next line
    INSTALLED_APPS = [..., "ts_autotrack.integrations.django.TrackingConfig"]    # `manage.py check` knows the setting

Keys of `TS_AUTOTRACK`, all optional:

- `user`: path of attributes that begins at the request (default: `"user.pk"`), or a callable that receives the request.
  A callable, sync or async, returns a user id, `(user_id, group_id)`, a mapping of `user_context`'s arguments, or None.
- `group`: the account, a path such as `"tenant.slug"` (of `request.tenant`), or such a callable.
- `features`: names of features by method and route, `{"POST /reports/<int:id>/export": "report_export"}`: an event for
  each response below 400. The route is in Django's syntax, with or without the first slash.
- `trust_baggage`: True if the ids in a request's own `baggage` header count. Default: False.

The user is asked for at the first event of a request, not before: a request without an event loads no session and no
user, and gets no `Vary: Cookie`. An event in an async view waits until the view has returned, if the user was not
loaded before: `await request.auser()` tells who acted. So do the events before a `login()`.
"""

from __future__ import annotations

import hashlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import AppConfig
from django.conf import settings
from django.http.response import HttpResponseBase

from ts_autotrack import register_response, request_scope
from ts_autotrack.integrations._django_settings import read_settings, template_of
from ts_autotrack.integrations._django_streams import follow_stream
from ts_autotrack.integrations._django_user import RequestUser
from ts_autotrack.integrations._http import CGI_HEADERS, header_texts, request_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack.integrations._django_settings import TrackingSettings


class TrackingConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """App for INSTALLED_APPS: `manage.py check` checks the setting TS_AUTOTRACK and MIDDLEWARE."""

    name = "ts_autotrack.integrations.django"
    label = "ts_autotrack"


class TrackingMiddleware:
    """Middleware that puts a request scope around each request: for WSGI and ASGI, sync and async views.

    Any place in MIDDLEWARE is right; the first one includes the events of other middleware.

    Raises:
        ImproperlyConfigured: The setting TS_AUTOTRACK has a mistake.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[Any], Any], tracking: TrackingSettings | None = None) -> None:
        self._get_response = get_response
        self._settings = tracking or read_settings()
        self._names_features = bool(self._settings.routes)
        self._loaded_modules = 0
        self._is_async = iscoroutinefunction(get_response)
        register_response(HttpResponseBase)
        self.process_view: Callable[..., Any] = self._register_responses
        if self._is_async:
            markcoroutinefunction(self)
            self.process_view = self._aregister_responses  # Django would call a plain function in a thread

    def __call__(self, request: Any) -> Any:
        """Return the response, or in async mode an awaitable of the response."""
        if hasattr(request, "_ts_autotrack"):
            return self._get_response(request)  # the middleware is twice in MIDDLEWARE
        return self._arespond(request) if self._is_async else self._respond(request)

    def _respond(self, request: Any) -> Any:
        user, opened = self._begin(request)
        streams = False
        with opened:
            try:
                response = self._get_response(request)
                if self._names_features:
                    self._record(request, response)
                streams = follow_stream(response, opened, user)
            finally:
                if not streams:
                    opened.end()
        return response

    async def _arespond(self, request: Any) -> Any:
        user, opened = self._begin(request)
        streams = False
        with opened:
            try:
                response = await self._get_response(request)
                if self._names_features:
                    self._record(request, response)
                streams = follow_stream(response, opened, user)
            finally:
                await (opened.settle() if streams else opened.aend())
        return response

    def _begin(self, request: Any) -> tuple[RequestUser, Any]:
        request._ts_autotrack = True  # noqa: SLF001 - the name is our own
        user = RequestUser(request, self._settings, can_await=self._is_async)
        headers = None if self._settings.trust_baggage else partial(_headers, request)
        return user, request_scope(user, context=partial(_context, request), headers=headers).begin()

    def _record(self, request: Any, response: Any) -> None:
        """Send the event of the feature that the request's route uses."""
        match = request.resolver_match
        if match is not None:
            self._settings.routes.record(request.method, template_of(match.route), response.status_code)

    def _register_responses(self, *_: object) -> None:
        """Find new response classes: Django imports the URLconf, and views with it, in the first request."""
        if len(sys.modules) != self._loaded_modules:
            self._loaded_modules = len(sys.modules)
            register_response(HttpResponseBase)

    async def _aregister_responses(self, *_: object) -> None:
        self._register_responses()


def _context(request: Any) -> dict[str, object]:
    """Return the context of a request's events. The session is not touched: Django would add `Vary: Cookie`."""
    meta = request.META
    context = request_context(meta, CGI_HEADERS)
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME) if "HTTP_COOKIE" in meta else None
    if key and not settings.SESSION_ENGINE.endswith("signed_cookies"):  # there, the cookie is the session itself
        context["session_id"] = hashlib.sha256(key.encode(errors="replace")).hexdigest()[:32]
    return context


def _headers(request: Any) -> Any:
    """Return the headers of a request. Under ASGI the scope has them: Django joins headers of the same name."""
    scope = getattr(request, "scope", None)
    return request.headers if scope is None else header_texts(scope["headers"])
