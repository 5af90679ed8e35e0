"""Django projects, tracked without a line of their settings."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.wsgi import WsgiToAsgi
from django.conf import settings
from django.core.checks import run_checks
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from tests.integrations.apps.django_app import AUTHENTICATION, CHOSEN, SESSION, TRACKING, user_of
from tests.integrations.asgi_requests import get as aget
from tests.integrations.automatic import track, undone
from tests.integrations.django_requests import asend, both_handlers, database, events, get, project, tracking
from ts_autotrack.integrations import _django_settings
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from tests.conftest import Inspector
    from tests.integrations.django_requests import Get

__all__ = ["database", "project", "undone"]

OWN = (CHOSEN, SESSION, AUTHENTICATION)
"""The project's MIDDLEWARE, without the library's."""
USERS = [f"user-{number}" for number in range(20)]


@pytest.fixture(autouse=True)
def no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore the note that handlers load the middleware by themselves."""
    monkeypatch.setattr(_django_settings, "automatic", False)


@both_handlers
def test_request_s_user_acts(project: Inspector, get: Get) -> None:
    """`request.user` acts in sync and async views, under both handlers; MIDDLEWARE is as the project wrote it."""
    track("django", {"GET /async/<int:number>": "async_view"})
    with tracking(*OWN):
        for path in ("/work/1", "/async/1"):
            assert get(path, "user-1").status == 200
        get("/work/1")
        assert list(OWN) == settings.MIDDLEWARE
        assert not [message for message in run_checks() if message.id == "ts_autotrack.W001"]
    number = str(user_of("user-1").pk)
    named = [("work", number, None), ("view", number, None), ("work", number, None), ("async_view", number, None)]
    assert sorted(events(project)) == sorted(named)


def test_users_at_the_same_time(project: Inspector) -> None:
    """20 users at a time in threads, and 20 in an event loop: each event has its user."""
    track("django", user=lambda request: request.headers["X-User"])
    with tracking(*OWN):
        with ThreadPoolExecutor(20) as pool:
            list(pool.map(lambda user: get("/served/1", user), USERS))

        async def all_of_them() -> None:
            handler = ASGIHandler()
            await asyncio.gather(*(asend(handler, "/async/1", {"X-User": user}) for user in USERS))

        asyncio.run(all_of_them())
    assert sorted(events(project)) == sorted(("work", user, None) for user in 2 * USERS)


@both_handlers
def test_listed_middleware_wins(project: Inspector, get: Get) -> None:
    """A middleware in MIDDLEWARE is not loaded again, and its setting TS_AUTOTRACK counts."""
    track("django", user=lambda: "wrong")
    with tracking(TRACKING, *OWN, user="user.username"):
        get("/served/1", "user-1")
    with tracking(*OWN, user="user.username", group="user.last_name"):
        get("/served/1", "user-2")
    assert events(project) == [("work", "user-1", None), ("work", "user-2", "account-user-2")]


def test_middleware_around_django_wins(project: Inspector) -> None:
    """An ASGI middleware around the project opens the request, and Django's does nothing."""
    track("django", user=lambda: "wrong")

    def who(scope: Any) -> str:
        return str(dict(scope["headers"])[b"x-user"], "ascii")

    with tracking(*OWN):
        asyncio.run(asend(TrackingMiddleware(ASGIHandler(), who), "/async/1", {"X-User": "user-3"}))
    assert events(project) == [("work", "user-3", None)]


def test_project_below_a_flask_application(project: Inspector) -> None:
    """A project mounted in Flask's `wsgi_app`, both tracked by themselves: `request.user` acts in Django."""
    track("flask", user=lambda request: f"flask-{request.path}")
    track("django")
    with tracking(*OWN, user="user.username"):
        outer = Flask("outer")
        outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": WSGIHandler()})  # type: ignore[method-assign]
        assert outer.test_client().get("/in/work/1", headers={"X-User": "user-5"}).status_code == 200
    assert {user for _, user, _ in events(project)} == {"user-5"}


def test_wsgi_handler_below_an_asgi_application(project: Inspector) -> None:
    """The middleware of an ASGI application opens the request also for Django's WSGI handler below."""
    track("django", user=lambda: "wrong")
    with tracking(*OWN):
        app = TrackingMiddleware(Starlette(routes=[Mount("/in", app=WsgiToAsgi(WSGIHandler()))]), lambda _: "outer")  # type: ignore[no-untyped-call]
        assert [answer.status_code for answer in aget(app, "/in/work/1", users=["user-6"])] == [200]
    assert {user for _, user, _ in events(project)} == {"outer"}


def test_project_in_another_application(project: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A project mounted in an application of Starlette, both tracked by themselves: `request.user` acts in Django."""
    features = {"GET /async/<int:number>": "async_view"}
    track("starlette", features)
    track("django", features)
    with tracking(*OWN, user="user.username"):
        app = Starlette(routes=[Mount("/", app=ASGIHandler())])
        assert [answer.status_code for answer in aget(app, "/async/1", users=["user-4"])] == [200]
    assert sorted(events(project)) == [("async_view", "user-4", None), ("work", "user-4", None)]
    assert "Name them in" not in caplog.text


def test_mistake_in_the_project_s_setting_fails_no_request(
    project: Inspector, caplog: pytest.LogCaptureFixture
) -> None:
    """A project that runs without the library runs with it; a warning tells of the mistake."""
    track("django")
    with tracking(*OWN, users="user.pk"):
        assert get("/served/1", "user-1").status == 200
    assert events(project) == []
    assert "ImproperlyConfigured" in caplog.text


def test_test_client_is_tracked(project: Inspector) -> None:
    """Django's test client loads the middleware in its own way."""
    track("django", user=lambda: "ann")
    with tracking(*OWN):
        assert Client().get("/served/1").status_code == 200
    assert events(project) == [("work", "ann", None)]
