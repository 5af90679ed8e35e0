"""The Flask extension: who acts in a request, and features by route."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import flask
import pytest
from flask import Blueprint, Flask, Response, g, request, session
from flask.sessions import SecureCookieSession, SessionInterface
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

import ts_autotrack
from tests.integrations.wsgi_events import as_user, events, header_user
from ts_autotrack import bind_user, clear_user, track, track_feature
from ts_autotrack._core import diagnostics
from ts_autotrack.integrations.flask import Tracking
from ts_autotrack.integrations.wsgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


@pytest.fixture
def app() -> Flask:
    """An application with a tracked view and no extension."""
    app = Flask(__name__)

    @app.get("/report/<int:number>")
    @track_feature("report")
    def report(number: int) -> str:
        return str(number)

    return app


def test_user_is_asked_once_by_the_first_event(inspector: Inspector, app: Flask) -> None:
    """`user` uses Flask's proxies; a request without an event asks nobody."""
    asked = []

    def user() -> tuple[str, str]:
        asked.append(request.path)
        return g.user, "acme"

    Tracking(app, user)

    @app.before_request
    def log_in() -> None:
        g.user = header_user()

    @app.get("/untracked")
    def untracked() -> str:
        return "nothing"

    @app.get("/twice")
    def twice() -> str:
        track("first")
        track("second")
        return "done"

    client = app.test_client()
    assert client.get("/report/1", headers=as_user("ann")).text == "1"
    assert client.get("/untracked").text == "nothing"
    assert client.get("/twice", headers=as_user("bob")).text == "done"
    assert events(inspector) == [("report", "ann"), ("first", "bob"), ("second", "bob")]
    assert asked == ["/report/1", "/twice"]
    assert {item["context"]["group_id"] for item in inspector.items()} == {"acme"}


def test_binding_in_before_request_ends_with_the_request(inspector: Inspector, app: Flask) -> None:
    """`bind_user` in a `before_request` function says nothing about the next request on the same thread."""
    Tracking(app)

    @app.before_request
    def log_in() -> None:
        if name := header_user():
            bind_user(name, group_id=f"account-{name}")

    client = app.test_client()
    for name in ("ann", "", "bob", "", ""):
        client.get("/report/1", headers=as_user(name))
    assert events(inspector) == [("report", "ann"), ("report", "bob")]
    assert ts_autotrack.stats().dropped == {"unattributed": 3}


def test_login_s_event_belongs_to_the_user_who_logged_in(inspector: Inspector) -> None:
    """An event before `bind_user` takes the user known at the end, even if the test client reads no body."""
    app = Flask(__name__)
    Tracking(app, header_user)

    @app.post("/login")
    def log_in() -> Response:
        track("signing_in")
        bind_user("ann")
        return flask.make_response("welcome")

    @app.post("/logout")
    def log_out() -> str:
        clear_user()
        return "bye"

    response = app.test_client().post("/login")
    assert events(inspector) == [("signing_in", "ann")]
    assert response.text == "welcome"
    assert app.test_client().post("/logout", headers=as_user("ann")).text == "bye"


def test_streams_belong_to_the_user(inspector: Inspector) -> None:
    """A stream's steps and its `close` run inside the request, with and without `stream_with_context`."""
    app = Flask(__name__)
    Tracking(app, header_user)

    @track_feature("rows")
    def rows() -> Iterator[str]:
        track("step")
        yield "x"
        track("step")

    @app.get("/plain")
    def plain() -> Response:
        response = Response(rows())
        response.call_on_close(lambda: track("closed"))
        return response

    @app.get("/with_context")
    def with_context() -> Response:
        return Response(flask.stream_with_context(rows()))

    for name in ("ann", "bob"):
        for path in ("/plain", "/with_context"):
            response = app.test_client().get(path, headers=as_user(name))
            assert response.text == "x"
            response.close()
    plain_events = [("step", "step", "rows", "closed"), ("step", "step", "rows")]
    assert events(inspector) == [(step, name) for name in ("ann", "bob") for steps in plain_events for step in steps]


def test_user_bound_by_the_view_goes_on_in_its_stream(inspector: Inspector) -> None:
    """A stream belongs to the user bound by its view; a stream of nobody's request has no user."""
    app = Flask(__name__)
    Tracking(app)

    @app.get("/stream")
    def stream() -> Iterator[str]:
        if name := header_user():
            bind_user(name)

        def rows() -> Iterator[str]:
            track("step")
            yield "x"

        return rows()

    for name in ("ann", "", "bob"):
        app.test_client().get("/stream", headers=as_user(name)).close()
    assert events(inspector) == [("step", "ann"), ("step", "bob")]


def test_all_functions_of_a_request_are_inside(inspector: Inspector) -> None:
    """Functions before and after the view, of blueprints, errors, teardown and the response's close have the user."""
    app, blueprint = Flask(__name__), Blueprint("shop", __name__, url_prefix="/shop")
    Tracking(app, header_user)
    app.before_request(lambda: track("before"))
    app.teardown_request(lambda _: track("teardown"))
    blueprint.before_request(lambda: track("before_blueprint"))

    @app.after_request
    def after(response: Response) -> Response:
        track("after")
        response.call_on_close(lambda: track("closed"))
        return response

    @blueprint.get("/fail")
    @track_feature("failing")
    def fail() -> str:
        raise LookupError

    @app.errorhandler(LookupError)
    def handle(_: LookupError) -> tuple[str, int]:
        track("handling")
        return "sorry", 418

    app.register_blueprint(blueprint)
    response = app.test_client().get("/shop/fail", headers=as_user("ann"))
    assert response.status_code == 418
    response.close()
    steps = ["before", "before_blueprint", "handling", "after", "teardown", "closed"]
    assert events(inspector) == [(step, "ann") for step in steps]


def test_async_view(inspector: Inspector) -> None:
    """An async view runs inside its request; a binding in the view reaches its stream."""
    app = Flask(__name__)
    Tracking(app, header_user)

    @app.get("/async")
    @track_feature("async_view")
    async def view() -> str:
        return "done"

    @app.get("/bound")
    async def bound() -> Iterator[str]:
        bind_user("bound")

        def rows() -> Iterator[str]:
            track("step")
            yield "x"

        return rows()

    client = app.test_client()
    assert client.get("/async", headers=as_user("ann")).text == "done"
    client.get("/bound", headers=as_user("ann")).close()
    assert events(inspector) == [("async_view", "ann"), ("step", "bound")]


def make_app(tracking: Tracking) -> Flask:
    """Return an application, as factories make them."""
    app = Flask(__name__)
    tracking.init_app(app)

    @app.get("/report")
    @track_feature("report")
    def report() -> str:
        return "done"

    return app


def test_several_applications_and_a_second_init_app(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """One extension serves several applications, also mounted ones; each request is tracked once."""
    tracking = Tracking(user=header_user, features={"GET /report": "by_route"})
    app, other = make_app(tracking), make_app(tracking)
    tracking.init_app(app)
    assert not caplog.records
    Tracking(app, user=lambda: "wrong")
    assert "is ignored" in caplog.text
    mounted = TrackingMiddleware(DispatcherMiddleware(app.wsgi_app, {"/other": other.wsgi_app}), lambda _: "outer")
    Client(app).get("/report", headers=as_user("ann")).close()
    Client(mounted).get("/other/report").close()
    assert events(inspector) == [("report", "ann"), ("by_route", "ann"), ("report", "outer"), ("by_route", "outer")]


FEATURES = {
    "POST /reports/<int:number>/export": "report_export",
    "* /shop/<item>": "shop_item",
    "GET /moved": "moved",
    "GET /changed": "changed",
    "GET /unknown": "unknown",
    "GET /failing": "failing",
    "GET /stream": "stream",
    "GET /broken": "broken",
}


def test_features_by_rule(inspector: Inspector) -> None:
    """A final response below 400 sends the feature of its rule, written as in Flask with the blueprint's prefix."""
    app, blueprint = Flask(__name__), Blueprint("shop", __name__, url_prefix="/shop")
    app.add_url_rule("/reports/<int:number>/export", "export", lambda number: f"{number}", methods=["GET", "POST"])
    app.add_url_rule("/moved", "moved", lambda: flask.redirect("/"))
    app.add_url_rule("/changed", "changed", lambda: "x")
    app.add_url_rule("/failing", "failing", lambda: str(1 / 0))
    blueprint.add_url_rule(
        "/<item>", "item", lambda item: (item, 404 if item == "gone" else 200), methods=["GET", "PUT"]
    )
    app.register_blueprint(blueprint)

    @app.after_request
    def change(response: Response) -> Response:
        if request.path == "/changed":
            response.status_code = 400
        return response

    Tracking(app, header_user, features=FEATURES)
    client = app.test_client()
    for method, path in (
        *(("POST", "/reports/3/export"), ("GET", "/reports/3/export"), ("POST", "/reports/x/export")),
        *(("GET", "/shop/pen"), ("PUT", "/shop/pen"), ("OPTIONS", "/shop/pen"), ("GET", "/shop/gone")),
        *(("GET", "/moved"), ("GET", "/changed"), ("GET", "/unknown"), ("GET", "/failing")),
    ):
        client.open(path, method=method, headers=as_user("ann"))
    assert events(inspector) == [(name, "ann") for name in ("report_export", "shop_item", "shop_item", "moved")]


def test_feature_of_a_stream(inspector: Inspector) -> None:
    """A stream sends the feature of its rule at its end; not if an error cuts the stream off."""
    app = Flask(__name__)

    def rows(error: Exception | None = None) -> Iterator[str]:
        yield "x"
        track("step")
        if error is not None:
            raise error

    app.add_url_rule("/stream", "stream", rows)
    app.add_url_rule("/broken", "broken", lambda: rows(LookupError()))
    Tracking(app, header_user, features=FEATURES)
    response = app.test_client().get("/stream", headers=as_user("ann"))
    assert events(inspector) == []
    assert response.text == "x"
    broken = app.test_client().get("/broken", headers=as_user("bob"))
    with pytest.raises(LookupError):
        broken.get_data()
    broken.close()
    assert events(inspector) == [("step", "ann"), ("stream", "ann"), ("step", "bob")]


class StoredSession(SecureCookieSession):
    """A session with an id, as Flask-Session's."""

    sid = "secret-key"


class StoredSessions(SessionInterface):
    """Sessions that the server keeps."""

    def open_session(self, *_: object) -> StoredSession:
        """Return the session of every request."""
        return StoredSession()

    def save_session(self, *_: object) -> None:
        """Keep nothing."""


def test_session_id_is_a_digest(inspector: Inspector, app: Flask) -> None:
    """The id of a session kept by the server is hashed: the id itself is a credential."""
    Tracking(app, header_user)
    app.session_interface = StoredSessions()
    app.test_client().get("/report/1", headers=as_user("ann"))
    assert events(inspector) == [("report", "ann")]
    (item,) = inspector.items()
    assert item["context"]["session_id"] == hashlib.sha256(b"secret-key").hexdigest()[:32]


def test_cookie_session_is_not_touched(inspector: Inspector, app: Flask) -> None:
    """Flask's own session has no id; the response has no `Vary: Cookie`, which Flask adds once the session is read."""
    app.secret_key = "test"
    Tracking(app, header_user)

    @app.get("/shopping")
    def shopping() -> str:
        session["cart"] = 1
        track("shopping")
        return "x"

    response = app.test_client().get("/report/1", headers={"X-User": "ann", "Referer": "https://example.com/"})
    assert "Vary" not in response.headers
    app.test_client().get("/shopping", headers=as_user("ann"))
    assert events(inspector) == [("report", "ann"), ("shopping", "ann")]
    assert ["session_id" in item["context"] for item in inspector.items()] == [False, False]
    assert inspector.items()[0]["context"]["referrer"] == "https://example.com/"


def test_files_go_to_the_server_as_they_are(inspector: Inspector) -> None:
    """`send_file` gives the server its own file wrapper; static files ask for no user."""
    asked = []
    app = Flask(__name__, static_url_path="/static", static_folder=flask.__path__[0])
    Tracking(app, lambda: asked.append(1))
    wrapped = []

    class Wrapper:
        def __init__(self, file: Any, *_: object) -> None:
            wrapped.append(self)
            self.close = file.close

    environ = {"wsgi.file_wrapper": Wrapper, **dict(app.test_request_context("/static/py.typed").request.environ)}
    body: Any = app(environ, lambda *_: lambda _: None)
    assert [body] == wrapped
    body.close()
    response = app.test_client().get("/static/py.typed")
    assert response.status_code == 200
    response.close()
    assert (events(inspector), asked) == ([], [])


def test_failing_user_never_reaches_the_request(
    inspector: Inspector, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `user` that raises costs the event its user, and the request nothing."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    Tracking(app, lambda: g.absent, features={"GET /report/<int:number>": "by_route"})
    response = app.test_client().get("/report/1")
    assert (response.status_code, response.text) == (200, "1")
    assert events(inspector) == []


def test_hooks_outside_of_requests(inspector: Inspector, app: Flask) -> None:
    """Contexts made by hand, as in tests and commands, work as without the extension."""
    Tracking(app, header_user, features={"GET /report/<int:number>": "by_route"})
    with app.test_request_context("/report/1"):
        assert app.full_dispatch_request().status_code == 200
    with app.app_context(), ts_autotrack.user_context("ann"):
        track("command")
    assert events(inspector) == [("command", "ann")]


def test_bad_arguments_raise(app: Flask) -> None:
    """A coroutine function as `user`, and a key of `features` without a method, raise when the extension is made."""

    async def user() -> str:
        return "ann"

    with pytest.raises(TypeError, match="cannot await"):
        Tracking(app, user)
    with pytest.raises(ValueError, match="/reports"):
        Tracking(app, features={"/reports": "report"})
    assert "ts_autotrack" not in app.extensions
