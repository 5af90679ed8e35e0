"""The WSGI middleware: the whole of a request, and nothing of the next one."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import propagate
from opentelemetry.context import attach, detach
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import Client, EnvironBuilder

import ts_autotrack
from tests.conftest import DEADLINE
from tests.integrations.wsgi_events import events
from ts_autotrack import add_properties, bind_user, track
from ts_autotrack._core import diagnostics
from ts_autotrack.integrations.wsgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.conftest import Inspector

Environ = dict[str, Any]
OK = "200 OK"
HEADERS = [("Content-Type", "text/plain")]


def header_user(environ: Environ) -> str | None:
    """Return the user that the request names."""
    return environ.get("HTTP_X_USER")


def call(app: Any, path: str = "/", method: str = "GET", **headers: str) -> tuple[list[str], Iterable[bytes]]:
    """Call an application as a server does; return the statuses that it set, and its result as it is."""
    environ = EnvironBuilder(path, method=method, headers=list(headers.items())).get_environ()
    statuses: list[str] = []
    return statuses, app(environ, lambda status, _, exc_info=None: statuses.append(status))  # noqa: ARG005


def serve(app: Any, path: str = "/", method: str = "GET", **headers: str) -> bytes:
    """Serve one request as a server does: call, iterate, close."""
    body = call(app, path, method, **headers)[1]
    try:
        return b"".join(body)
    finally:
        getattr(body, "close", lambda: None)()


class Body:
    """A body that tracks an event in each of its steps."""

    def __init__(self, steps: int = 2, error: Exception | None = None) -> None:
        self._steps = steps
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        track("iterating")
        for step in range(self._steps):
            track(f"step_{step}")
            yield b"x"
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Release the body."""
        track("closing")


def app_with(result: Callable[[], Iterable[bytes]], status: str = OK) -> Any:
    """Return an application with the given body."""

    def app(_: Environ, start_response: Any) -> Iterable[bytes]:
        track("called")
        start_response(status, HEADERS)
        return result()

    return app


def test_all_steps_of_a_request_belong_to_its_user(inspector: Inspector) -> None:
    """The call, each step of the iteration and `close` run inside the request; the user is asked once."""
    asked = []

    def user(environ: Environ) -> tuple[str, str]:
        asked.append(environ)
        return environ["HTTP_X_USER"], "acme"

    app = TrackingMiddleware(app_with(Body), user)
    for name in ("ann", "bob"):
        assert serve(app, X_User=name) == b"xx"
    steps = ["called", "iterating", "step_0", "step_1", "closing"]
    assert events(inspector) == [(step, name) for name in ("ann", "bob") for step in steps]
    assert len(asked) == 2
    assert {item["context"]["group_id"] for item in inspector.items()} == {"acme"}


def test_bodies_of_requests_that_take_turns_are_told_apart(inspector: Inspector) -> None:
    """A server may iterate several bodies in turn, on one thread or on several: each step has its own user."""
    app = TrackingMiddleware(app_with(Body), header_user)
    bodies = [iter(call(app, X_User=name)[1]) for name in ("ann", "bob")]
    for body in bodies:
        next(body)
    thread = threading.Thread(target=lambda: [next(body) for body in bodies])
    thread.start()
    thread.join(DEADLINE)
    for body in bodies:
        body.close()  # type: ignore[attr-defined]
    found = events(inspector)
    assert {name: [step for step, user in found if user == name] for name in ("ann", "bob")} == {
        name: ["called", "iterating", "step_0", "step_1", "closing"] for name in ("ann", "bob")
    }


def test_binding_ends_with_the_request(inspector: Inspector) -> None:
    """`bind_user` in one request says nothing about the next request on the same thread."""

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        if name := header_user(environ):
            bind_user(name)
        start_response(OK, HEADERS)
        yield b"x"
        track("used", {"path": environ["PATH_INFO"]})

    tracked = TrackingMiddleware(app)
    for path, user in (("/1", "ann"), ("/2", ""), ("/3", "bob"), ("/4", "")):
        serve(tracked, path, X_User=user)
    track("outside")
    assert events(inspector) == [("used", "ann"), ("used", "bob")]
    assert ts_autotrack.stats().dropped == {"unattributed": 3}


def test_event_before_a_login_belongs_to_the_user_who_logged_in(inspector: Inspector) -> None:
    """An event tracked while nobody is known takes the user known at the end of the request."""

    def app(_: Environ, start_response: Any) -> Iterable[bytes]:
        track("signing_in")
        bind_user("ann")
        start_response(OK, HEADERS)
        return [b"x"]

    serve(TrackingMiddleware(app))
    assert events(inspector) == [("signing_in", "ann")]


@pytest.mark.parametrize("body", [[b"a", b"b"], (b"a",), []])
def test_lists_and_tuples_are_returned_as_they_are(body: Iterable[bytes]) -> None:
    """Servers read the length of a list or tuple."""
    app = TrackingMiddleware(app_with(lambda: body), header_user)
    assert call(app)[1] is body


class FileWrapper:
    """A server's `wsgi.file_wrapper`."""

    def __init__(self, file: Any) -> None:
        self.file = file


@pytest.mark.parametrize("wrapper", [FileWrapper, lambda file: file])
def test_files_are_returned_as_they_are(wrapper: Any) -> None:
    """Servers send results of their file wrapper in their own way, whether the wrapper is a class or a function."""
    with open(__file__, "rb") as file:  # noqa: PTH123 - a file as an application opens it
        environ = {**EnvironBuilder().get_environ(), "wsgi.file_wrapper": wrapper}
        results = []

        def app(environ: Environ, start_response: Any) -> Any:
            start_response(OK, HEADERS)
            results.append(environ["wsgi.file_wrapper"](file))
            return results[-1]

        assert TrackingMiddleware(app)(environ, lambda *_: None) is results[0]  # type: ignore[arg-type]


def test_write_and_a_second_start_response_work(inspector: Inspector) -> None:
    """The server's `write` comes back from `start_response`; with `exc_info` the second status is the status."""
    written: list[bytes] = []
    calls: list[tuple[Any, ...]] = []

    def start_response(*arguments: Any) -> Any:
        calls.append(arguments)
        return written.append

    def app(_: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(OK, HEADERS)(b"early")
        try:
            raise KeyError  # noqa: TRY301 - caught as by an application's error page
        except KeyError as error:
            start_response("500 Oh", HEADERS, (KeyError, error, None))
        return [b"late"]

    tracked = TrackingMiddleware(app, lambda _: "ann", features={"GET /": "home"})
    assert list(tracked(EnvironBuilder().get_environ(), start_response)) == [b"late"]
    assert written == [b"early"]
    assert [len(arguments) for arguments in calls] == [2, 3]
    assert events(inspector) == []


@pytest.mark.parametrize("features", [None, {"GET /": "home"}])
def test_middleware_keeps_to_the_standard(features: dict[str, str] | None) -> None:
    """Werkzeug's checks of the WSGI standard, inside and outside, find nothing."""
    app = LintMiddleware(TrackingMiddleware(LintMiddleware(app_with(lambda: iter([b"x"]))), features=features))
    response = Client(app).get("/", buffered=True)
    assert (response.status, response.data) == (OK, b"x")


def test_error_of_the_application_passes_through(inspector: Inspector) -> None:
    """The application's exception is the caller's; the request has ended, with its events."""
    error = LookupError("theirs")

    def app(_: Environ, start_response: Any) -> Iterable[bytes]:
        start_response(OK, HEADERS)
        track("tried")
        bind_user("ann")
        raise error

    with pytest.raises(LookupError) as raised:
        serve(TrackingMiddleware(app, features={"GET /": "home"}))
    assert raised.value is error
    assert events(inspector) == [("tried", "ann")]


def test_error_of_the_body_passes_through(inspector: Inspector) -> None:
    """A response cut off by an error is no success: the event of the route's feature is not sent."""
    error = LookupError("theirs")
    app = TrackingMiddleware(app_with(lambda: Body(1, error)), lambda _: "ann", features={"GET /": "home"})
    with pytest.raises(LookupError) as raised:
        serve(app)
    assert raised.value is error
    assert "home" not in dict(events(inspector))


@pytest.mark.parametrize("body", [lambda: [b"x"], lambda: iter([b"x"]), Body])
def test_features_by_path(inspector: Inspector, body: Any) -> None:
    """A response below 400 sends the feature of its path, once, whatever the body is."""
    features = {"GET /b\u00fccher": "books", "* /api/report": "report"}
    user = {"X_User": "ann"}
    app = TrackingMiddleware(app_with(body), header_user, features=features)
    mounted = TrackingMiddleware(DispatcherMiddleware(app, {"/api": app_with(body)}), header_user, features=features)
    serve(app, "/b\u00fccher", **user)
    serve(app, "/b\u00fccher", "POST", **user)
    serve(mounted, "/api/report", "POST", **user)
    serve(mounted, "/report", "POST", **user)
    serve(TrackingMiddleware(app_with(body, "404 No"), header_user, features=features), "/b\u00fccher", **user)
    names = [name for name, _ in events(inspector)]
    assert [name for name in names if name in features.values()] == ["books", "report"]


def test_feature_of_a_body_that_is_closed_early(inspector: Inspector) -> None:
    """A client that goes away has used the feature."""
    body = call(TrackingMiddleware(app_with(Body), header_user, features={"GET /": "home"}), X_User="ann")[1]
    next(iter(body))
    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]
    assert dict(events(inspector))["home"] == "ann"


def test_inner_middleware_does_nothing(inspector: Inspector) -> None:
    """With a middleware around a mounted application's own, the outer one opens the request, once."""
    inner = TrackingMiddleware(app_with(Body), lambda _: "wrong", features={"GET /": "inner"})
    outer = TrackingMiddleware(DispatcherMiddleware(inner, {"/a": inner}), header_user)
    serve(outer, X_User="ann")
    serve(outer, "/a", X_User="ann")
    assert {user for _, user in events(inspector)} == {"ann"}
    assert len(inspector.items()) == 10


def test_environ_may_be_used_again(inspector: Inspector) -> None:
    """A second request with the same environ is a request of its own."""
    users = iter(["ann", "bob"])
    app = TrackingMiddleware(app_with(lambda: [b"x"]), lambda _: next(users))
    environ = EnvironBuilder().get_environ()
    for _ in range(2):
        app(environ, lambda *_: lambda _: None)
    assert events(inspector) == [("called", "ann"), ("called", "bob")]


def test_failing_user_never_reaches_the_request(
    inspector: Inspector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `user` that raises is logged; the response is the application's."""
    monkeypatch.setattr(diagnostics, "reraise", False)

    def user(_: Environ) -> str:
        raise LookupError

    assert serve(TrackingMiddleware(app_with(Body), user)) == b"xx"
    assert events(inspector) == []
    assert "LookupError" in caplog.text


@pytest.mark.parametrize(("trust", "expected"), [(False, []), (True, [("used", "victim")])])
def test_baggage_of_the_request_counts_only_if_trusted(
    inspector: Inspector, *, trust: bool, expected: list[tuple[str, str]]
) -> None:
    """Any client can send a `baggage` header; its ids count with `trust_baggage=True` only."""

    def app(environ: Environ, start_response: Any) -> Iterable[bytes]:
        token = attach(propagate.extract({"baggage": environ["HTTP_BAGGAGE"]}))
        try:
            track("used")
        finally:
            detach(token)
        start_response(OK, HEADERS)
        return []

    serve(TrackingMiddleware(app, trust_baggage=trust), baggage="user.id=victim")
    assert events(inspector) == expected


def test_context_of_the_request(inspector: Inspector) -> None:
    """Events have the referrer and the device type of their request; nothing else is taken from its headers."""
    headers = {"Referer": "https://example.com/a?secret=1", "Sec-CH-UA-Mobile": "?1", "Cookie": "sid=1"}
    serve(TrackingMiddleware(app_with(lambda: [b"x"]), lambda _: "ann"), **headers)
    assert ts_autotrack.flush()
    (item,) = inspector.items()
    context = {key: value for key, value in item["context"].items() if key not in {"event_id", "source"}}
    assert context == {"referrer": "https://example.com/a", "device_type": "mobile"}


def test_bad_arguments_raise() -> None:
    """A coroutine function as `user`, and a key of `features` without a method, raise when the middleware is made."""

    async def user(_: Environ) -> str:
        return "ann"

    with pytest.raises(TypeError, match="cannot await"):
        TrackingMiddleware(app_with(Body), user)
    with pytest.raises(ValueError, match="/reports"):
        TrackingMiddleware(app_with(Body), features={"/reports": "report"})


def test_properties_reach_a_call_inside_the_body(inspector: Inspector) -> None:
    """A tracked generator as the body gets properties in its steps."""

    @ts_autotrack.track_feature("row_stream")
    def rows() -> Iterator[bytes]:
        yield b"x"
        add_properties(rows=1)

    serve(TrackingMiddleware(app_with(rows), header_user), X_User="ann")
    assert ts_autotrack.flush()
    assert [item["properties"].get("rows") for item in inspector.items()] == [None, 1]
