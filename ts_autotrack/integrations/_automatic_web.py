"""Automatic integrations of web frameworks: ASGI, Flask, Django and aiohttp.

A function of this module makes one framework call the integration that its users would add by hand. An integration
that the application adds itself wins: it takes the request over, and its `user=` and `features=` count.
"""

from __future__ import annotations

import importlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from ts_autotrack.integrations._framework_users import flask_login_user, starlette_user
from ts_autotrack.integrations._http import FeatureRoutes
from ts_autotrack.integrations._log import warn_once
from ts_autotrack.integrations._named_user import with_argument
from ts_autotrack.integrations._patches import attempt
from ts_autotrack.integrations._takeover import BY_HAND, REQUEST, AutomaticRequest, around, take_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ts_autotrack.integrations._patches import Patches
    from ts_autotrack.typing import Identity

    User = Callable[[], Identity] | None
    Features = Mapping[str, str]


def track_asgi(module: str, name: str, patches: Patches, features: Features, user: User) -> None:
    """Track all applications of a class: its `__call__` is looked up for each connection, so old ones count, too."""
    from ts_autotrack.integrations.asgi import TrackingMiddleware

    owner = getattr(importlib.import_module(module), name)
    FeatureRoutes(features)  # a mistake is told now
    patches.add(owner, "__call__", _AsgiApplications(name, TrackingMiddleware, features, user))


class _AsgiApplications:
    """wrapt's wrapper of an application's `__call__`: one middleware, made for the first connection, serves all."""

    def __init__(self, framework: str, kind: Any, features: Features, user: User) -> None:
        self._framework = framework
        self._kind = kind
        self._features = features
        self._user = user
        self._lock = threading.Lock()
        self._middleware: Any = None
        self._routes = FeatureRoutes(features)

    def __call__(self, original: Any, _: object, args: Any, kwargs: Any) -> Awaitable[None]:
        return self._serve(original, *args, **kwargs)

    def _serve(self, original: Any, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        middleware = self._middleware or attempt(self._framework, self._made)
        if REQUEST in scope or middleware is None or scope["type"] not in {"http", "websocket"}:
            if self._routes and scope.get(REQUEST) is True:
                warn_once(BY_HAND)
            return original(scope, receive, send)  # type: ignore[no-any-return]
        scope[REQUEST] = AutomaticRequest(self._routes)
        return middleware.serve(original, scope, receive, send)  # type: ignore[no-any-return]

    def _made(self) -> Any:
        ask = with_argument(self._user) or starlette_user  # without the lock: imports a module of the application
        with self._lock:
            if self._middleware is None:
                self._middleware = self._kind(None, ask, features=self._features)
            return self._middleware


def track_flask(patches: Patches, features: Features, user: User) -> None:
    """Add the extension to each application at its first request, unless the application has added it."""
    from flask import Flask, request

    from ts_autotrack.integrations.flask import EXTENSION, Tracking

    lock = threading.Lock()
    FeatureRoutes(features)  # a mistake is told now

    def add(app: Any) -> None:
        ask = with_argument(user)  # without the lock: imports a module of the application
        with lock:
            if EXTENSION in app.extensions:
                return
            who = partial(flask_login_user, app) if ask is None else lambda: ask(request)
            Tracking(app, who, features=features)
            middleware = app.extensions[EXTENSION][1]
            middleware.automatic = True
            middleware.knows_user = ask is not None or hasattr(app, "login_manager")

    def call(original: Any, app: Any, args: Any, kwargs: Any) -> Any:
        extension = app.extensions.get(EXTENSION)
        if extension is None:
            attempt("flask", add, app)
        elif features and not extension[1].automatic:
            warn_once(BY_HAND)
        if features and around.get():
            warn_once(BY_HAND)
        return original(*args, **kwargs)

    patches.add(Flask, "__call__", call)


def track_django(patches: Patches, features: Features, user: User) -> None:
    """Put the middleware before all others when a handler loads its middleware, unless MIDDLEWARE lists it."""
    from django.core.handlers.base import BaseHandler

    def load(original: Any, handler: Any, args: Any, kwargs: Any) -> Any:
        original(*args, **kwargs)
        is_async = bool(args[0] if args else kwargs.get("is_async", False))
        attempt("django", partial(_put_first, handler, features, user, is_async=is_async))

    patches.add(BaseHandler, "load_middleware", load)


def _put_first(handler: Any, features: Features, user: User, *, is_async: bool) -> None:
    """Put the middleware before the loaded ones, as `BaseHandler.load_middleware` does with an entry of MIDDLEWARE."""
    from django.core.handlers.exception import convert_exception_to_response

    from ts_autotrack.integrations import _django_settings
    from ts_autotrack.integrations.django import TrackingMiddleware

    if _django_settings.is_listed():
        if features:
            warn_once(BY_HAND)
        return
    _django_settings.automatic = True

    class AutomaticMiddleware(TrackingMiddleware):
        def __call__(self, request: Any) -> Any:
            opened = (getattr(request, "scope", None) or request.META).get(REQUEST)
            if (opened is None and not around.get()) or take_over(opened, by_hand=False):
                return super().__call__(request)
            return self._get_response(request)  # the application tracks its requests outside of Django

    tracking = AutomaticMiddleware(
        handler._middleware_chain,  # noqa: SLF001 - Django has no public name
        _django_settings.automatic_settings(features, with_argument(user)),
    )
    handler._view_middleware.insert(0, handler.adapt_method_mode(is_async, tracking.process_view))  # noqa: SLF001
    handler._middleware_chain = convert_exception_to_response(tracking)  # noqa: SLF001


def track_aiohttp(patches: Patches, features: Features, user: User) -> None:
    """Put the middleware before all others when an application is about to start."""
    from aiohttp.web import Application

    from ts_autotrack.integrations.aiohttp import make_middleware

    routes = FeatureRoutes(features)

    def add(app: Any) -> None:
        if not app.pre_frozen:
            app.middlewares.insert(0, make_middleware(with_argument(user), routes, automatic=True))

    patches.before(Application, "pre_freeze", add)
