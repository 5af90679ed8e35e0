"""Flask applications, tracked without a line of their code, and Flask-Login's users."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import flask
import pytest
from flask import Flask
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user, logout_user
from werkzeug.test import Client

import ts_autotrack
from tests.integrations.automatic import events, track, undone
from tests.integrations.wsgi_events import as_user, header_user
from ts_autotrack import track_feature
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
