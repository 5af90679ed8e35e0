"""Flask applications, tracked without a line of their code, and Flask-Login's users."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import flask
import pytest
from asgiref.wsgi import WsgiToAsgi
from fastapi import FastAPI
from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, EnvironBuilder

import ts_autotrack
from tests.integrations.automatic import events, track, undone
from tests.integrations.wsgi_events import as_user, header_user
from ts_autotrack import track_feature
from ts_autotrack.integrations import asgi
from ts_autotrack.integrations.flask import Tracking
from ts_autotrack.integrations.wsgi import TrackingMiddleware

if TYPE_CHECKING:
    from tests.conftest import Inspector

__all__ = ["undone"]

USERS = [f"user-{number}" for number in range(20)]
ROUTE = {"GET /reports/<int:number>": "report_view"}


@track_feature("report")
def report() -> str:
    """Use a feature."""
    return "report"


@pytest.fixture
def app() -> Flask:
    """An application that knows nothing of the library."""
    app = Flask(__name__)
    app.secret_key = "not a secret"

    @app.get("/reports/<int:number>")
    def show(number: int) -> str:
        return report() * number

    return app


class Member(UserMixin):  # type: ignore[misc]  # Flask-Login has no types
    """User of an application. The id in the session is a token, as Flask-Login's documentation suggests."""

    def __init__(self, name: str) -> None:
        self.id = name

    def get_id(self) -> str:
        """Return the token."""
        return f"token-of-{self.id}"


@pytest.fixture
def members(app: Flask) -> Flask:
    """The application with Flask-Login."""
    manager = LoginManager(app)
    manager.user_loader(lambda token: Member(token.removeprefix("token-of-")))

    @app.post("/login/<name>")
    @track_feature("login")
    def log_in(name: str) -> str:
        login_user(Member(name))
        return "welcome"

    @app.post("/logout")
    def log_out() -> str:
        logout_user()
        return report()

    @app.get("/me")
    @login_required  # type: ignore[untyped-decorator]
    def me() -> str:
        report()
        return str(current_user.id)

    return app


def test_flask_login_s_users_act(inspector: Inspector, members: Flask) -> None:
    """20 users at a time, each by the attribute `id`, in an application that exists already; the login counts."""
    track("flask", ROUTE)

    def use(name: str) -> str:
        client = members.test_client()
        client.post(f"/login/{name}")
        client.get("/reports/1")
        return client.get("/me").text

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(use, USERS)) == USERS
    assert events(inspector) == sorted(
        (name, user) for name in ("login", "report", "report", "report_view") for user in USERS
    )


def test_nobody_acts_after_the_logout(inspector: Inspector, members: Flask) -> None:
    """Anonymous visitors are nobody, and so are users after their logout."""
    track("flask")
    client = members.test_client()
    assert client.get("/reports/1").text == "report"
    client.post("/login/ann")
    client.post("/logout")
    client.get("/reports/1")
    assert events(inspector) == [("login", "ann")]
    assert ts_autotrack.stats().dropped == {"unattributed": 3}


@pytest.mark.parametrize("by_hand", [False, True])
def test_event_before_the_login_belongs_to_who_logs_in(inspector: Inspector, members: Flask, *, by_hand: bool) -> None:
    """An event at the beginning of a login view waits for the user; so it does with an integration added by hand."""

    @members.post("/early/<name>")
    def early(name: str) -> str:
        report()
        login_user(Member(name))
        return "welcome"

    if by_hand:
        Tracking(members, lambda: current_user.id)  # raises for an anonymous user
    track("flask")
    assert members.test_client().post("/early/ann").text == "welcome"
    assert events(inspector) == [("report", "ann")]


@pytest.mark.usefixtures("members")
@pytest.mark.parametrize("named", [False, True])
def test_mounted_application_has_its_own_users(inspector: Inspector, app: Flask, *, named: bool) -> None:
    """An application below another Flask application is asked for its user, as are functions named in the settings."""
    outer = Flask("outer")
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/in": app})  # type: ignore[method-assign]
    track("flask", ROUTE, (lambda: flask.request.headers["X-User"]) if named else None)
    client = outer.test_client()
    client.post("/in/login/ann", headers=as_user("ann"))
    assert client.get("/in/reports/1", headers=as_user("ann")).text == "report"
    assert events(inspector) == [("login", "ann"), ("report", "ann"), ("report_view", "ann")]


@pytest.mark.usefixtures("members")
def test_application_called_by_a_view_leaves_the_view_s_request(inspector: Inspector, app: Flask) -> None:
    """The outer route counts although an application inside has opened, and ended, a request of its own."""
    outer = Flask("outer")
    outer.get("/outer")(lambda: flask.Response.from_app(app, EnvironBuilder("/reports/1").get_environ() | given()))

    def given() -> dict[str, object]:
        mark = "ts_autotrack.request"
        return {mark: flask.request.environ[mark]}

    track("flask", {"GET /outer": "outer", **ROUTE}, lambda: "ann")
    assert outer.test_client().get("/outer").text == "report"
    assert events(inspector) == [("outer", "ann"), ("report", "ann"), ("report_view", "ann")]


@pytest.mark.parametrize("by_hand", [True, False])
def test_application_below_an_asgi_application_acts_for_the_outer_user(
    inspector: Inspector, app: Flask, caplog: pytest.LogCaptureFixture, *, by_hand: bool
) -> None:
    """Without users of its own, a Flask application in FastAPI belongs to the request of the outer application.

    Where the outer application adds the integration itself, the Flask application's own users do not count.
    """
    track("fastapi")
    track("flask", ROUTE if by_hand else {})
    outer = FastAPI()
    outer.mount("/in", WsgiToAsgi(app))  # type: ignore[no-untyped-call]
    if by_hand:
        outer.add_middleware(asgi.TrackingMiddleware, user=lambda _: "ann")
    else:
        outer.add_middleware(Binding)
    client = TestClient(outer)
    assert client.get("/in/reports/1").text == "report"
    assert events(inspector) == [("report", "ann")]
    assert ("Name them in `features=`" in caplog.text) is by_hand


class Binding:
    """Middleware of an ASGI application that binds the user."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            ts_autotrack.bind_user("ann")
        await self._app(scope, receive, send)


def test_function_of_the_settings_acts(inspector: Inspector, members: Flask) -> None:
    """The function named in the settings goes before Flask-Login; it may take the request."""
    track("flask", user=lambda request: request.headers.get("X-User"))
    client = members.test_client()
    client.post("/login/ann", headers=as_user("bob"))
    client.get("/reports/1")
    assert events(inspector) == [("login", "bob")]


@pytest.mark.parametrize("by_hand", ["extension", "middleware", "around"])
def test_application_s_own_integration_wins(
    inspector: Inspector, caplog: pytest.LogCaptureFixture, app: Flask, by_hand: str
) -> None:
    """The user of an integration that the application adds counts, and each event is sent once."""
    named = {"GET /reports/<int:number>": "wrong"} if by_hand == "extension" else {}
    track("flask", named, user=lambda: "wrong")
    application: object = app
    if by_hand == "extension":
        Tracking(app, header_user, features=ROUTE)
    elif by_hand == "middleware":
        app.wsgi_app = TrackingMiddleware(app.wsgi_app, lambda environ: environ["HTTP_X_USER"])  # type: ignore[method-assign]
    else:
        application = TrackingMiddleware(app, lambda environ: environ["HTTP_X_USER"])
    client = Client(application)  # type: ignore[arg-type]
    for user in ("ann", "bob"):
        assert client.get("/reports/1", headers=as_user(user)).status_code == 200
    names = ("report", "report_view") if by_hand == "extension" else ("report",)
    assert events(inspector) == sorted((name, user) for name in names for user in ("ann", "bob"))
    assert ("Name them in `features=`" in caplog.text) is (by_hand == "extension")


def test_coroutine_function_is_nobody(inspector: Inspector, caplog: pytest.LogCaptureFixture, app: Flask) -> None:
    """Flask cannot await: a coroutine function in the settings leaves the events without a user, and says so."""

    async def ann() -> str:
        return "ann"

    track("flask", user=ann)
    assert app.test_client().get("/reports/1").text == "report"
    assert events(inspector) == []
    assert "async" in caplog.text


def test_streams_belong_to_their_user(inspector: Inspector, members: Flask) -> None:
    """A stream is read after Flask's request context: its events have Flask-Login's user all the same."""
    track("flask")

    @members.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(report() for _ in range(2))

    client = members.test_client()
    client.post("/login/ann")
    assert client.get("/stream").text == "reportreport"
    assert events(inspector) == [("login", "ann"), ("report", "ann"), ("report", "ann")]
