"""Django: responses of the framework, streams, features by route, and the context of a request's events."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db.backends.signals import connection_created
from django.test import Client, override_settings

import ts_autotrack
from tests.integrations.apps.django_app import SESSION, TRACKING, WAITS, session_of
from tests.integrations.apps.django_app import __file__ as app_file
from tests.integrations.django_requests import both_handlers, database, events, get, project, tracking

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector
    from tests.integrations.django_requests import Get

__all__ = ["database", "project"]

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"

mixed_streams = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")


@both_handlers
@pytest.mark.parametrize("path", ["/work/404", "/work/500", "/rest/403", "/invalid"])
def test_a_response_of_400_or_more_is_no_success(project: Inspector, get: Get, path: str) -> None:
    """A tracked view that returns a failed response of Django or REST framework has failed; its parts have not."""
    assert get(path, "user-1").status >= 400
    assert {name for name, *_ in events(project)} <= {"work"}
    get("/work/1", "user-1")
    get("/rest/1", "user-1")
    assert Counter(name for name, *_ in events(project))["view"] == 1
    assert Counter(name for name, *_ in events(project))["rest"] == 1


LATE_URLS = """
from django.http import HttpResponse
from django.urls import path
from ts_autotrack import track_feature

class Conflict(HttpResponse):
    status_code = 409

@track_feature("late")
def late(request, number):
    return Conflict() if number else HttpResponse()

urlpatterns = [path("<int:number>", late)]
"""


@both_handlers
def test_a_response_class_that_comes_with_the_first_request(
    project: Inspector, get: Get, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Django imports the URLconf in the first request: failed responses of its own classes are known by then."""
    name = f"late_urls_{get.__name__}"
    (tmp_path / f"{name}.py").write_text(LATE_URLS)
    monkeypatch.syspath_prepend(str(tmp_path))
    with override_settings(ROOT_URLCONF=name):
        assert [get(path, "user-1").status for path in ("/1", "/0")] == [409, 200]
    assert [name for name, *_ in events(project)] == ["late"]


@both_handlers
@pytest.mark.parametrize(("path", "count"), [("/stream/1", 3), ("/astream/1", 3), ("/once/1", 1), ("/once-sync/1", 1)])
@mixed_streams
def test_a_stream_runs_inside_its_request(project: Inspector, get: Get, path: str, count: int) -> None:
    """Events of a stream's parts and of its end go to the request's user, although the view has returned long ago."""
    assert get(path, "user-1").body == b"partpart"
    get(path)
    assert events(project) == [("work", "user-1", "account-user-1")] * count
    assert ts_autotrack.stats().dropped == {"unattributed": count}


def disconnect(path: str, count: int) -> None:
    """Send a request of user-1 through the ASGI handler; disconnect at its first part, or when the view waits.

    The loop goes on until `count` events happened, as a server's loop does: Python closes left generators later.
    """
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"x-user", b"user-1")]}

    async def run() -> None:
        leave = asyncio.Event()
        messages = iter([{"type": "http.request"}])

        async def receive() -> dict[str, Any]:
            for message in messages:
                return message
            await (WAITS if path == "/wait" else leave).wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                leave.set()
                await asyncio.Event().wait()  # a client that reads no more

        await ASGIHandler()(scope, receive, send)
        while ts_autotrack.stats().accepted < count:  # noqa: ASYNC110 - the end of a generator sets no event
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/stream/1", ["work"] * 3),
        ("/astream/1", ["work"] * 2),
        ("/cleanup", ["cleanup", "parts"]),
        ("/wait", ["work"]),
    ],
)
@mixed_streams
def test_a_client_that_disconnects(project: Inspector, path: str, names: list[str]) -> None:
    """Events before that, and events of an async stream's cleanup, belong to the request's user."""
    disconnect(path, len(names))
    assert events(project) == [(name, "user-1", "account-user-1") for name in names]
    assert ts_autotrack.stats().dropped == {}
    assert ts_autotrack.stats().pending == 0


def test_a_stream_that_is_never_read(project: Inspector) -> None:
    """A response to HEAD is closed without a part being read: its request ends, and leaves nothing pending."""
    with tracking(user="user.username", features={"* stream/<int:number>": "route"}):
        response = Client(headers={"X-User": "user-1"}).head("/stream/1")
        response.close()
    assert [name for name, *_ in events(project)] == ["route"]
    assert ts_autotrack.stats().pending == 0


def test_a_stream_that_is_closed_early_and_twice(project: Inspector) -> None:
    """A client may close the response while the stream is read, and the end of the stream closes the response again."""
    response = Client(headers={"X-User": "user-1"}).get("/stream/1")
    parts = response.streaming_content
    assert next(parts) == b"part"
    response.close()
    assert list(parts) == []
    response.close()
    assert events(project) == [("work", "user-1", "account-user-1")] * 2
    assert ts_autotrack.stats().dropped == {}


@both_handlers
@mixed_streams
def test_a_file_is_left_to_the_server(project: Inspector, get: Get) -> None:
    """A file is sent as it is, and the events of its view go to the user."""
    with open(app_file, "rb") as file:  # noqa: PTH123
        assert get("/file", "user-1").body == file.read()
    assert events(project) == [("work", "user-1", "account-user-1")]


@both_handlers
def test_features_by_route(project: Inspector, get: Get) -> None:
    """A route's feature is used by a response below 400; its key may begin with a slash, as Django's routes do not."""
    routes = {"GET /plain/<int:number>": "plain", "* invalid": "invalid", "POST /work/<int:number>": "post"}
    with tracking(user="user.username", features=routes):
        for path in ("/plain/3", "/plain/none", "/invalid", "/nowhere"):
            get(path, "user-1")
        get("/work/3", "user-2", "POST")
    assert [(name, user) for name, user, _ in events(project) if name != "view"] == [
        ("plain", "user-1"),
        ("work", "user-2"),
        ("post", "user-2"),
    ]


@both_handlers
def test_the_context_of_a_request(project: Inspector, get: Get) -> None:
    """Events carry the referrer, the device type, and the session's id as a digest; nothing else of the request."""
    headers = {"Referer": "https://example.com/a?secret=1", "User-Agent": IPHONE, "X-Forwarded-For": "192.0.2.1"}
    get("/work/1", "user-1", headers=headers)
    assert ts_autotrack.flush()
    for item in project.items():
        context = dict(item["context"])
        assert context.pop("session_id") == hashlib.sha256(session_of("user-1").encode()).hexdigest()[:32]
        assert context.pop("referrer") == "https://example.com/a"
        assert context.pop("device_type") == "mobile"
        assert set(context) == {"group_id", "source", "event_id"}


@both_handlers
def test_a_signed_cookie_is_no_session_id(project: Inspector, get: Get) -> None:
    """Sessions inside cookies have no id: the cookie is the session's content, and changes with it."""
    headers = {"Cookie": "sessionid=content"}
    with (
        override_settings(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"),
        tracking(TRACKING, SESSION, user=lambda _: "user"),
    ):
        get("/work/1", headers=headers)
    assert ts_autotrack.flush()
    assert project.items()
    assert all("session_id" not in item["context"] for item in project.items())


@both_handlers
@pytest.mark.parametrize("path", ["/plain/1", "/work/1", "/async/1"])
def test_the_session_is_touched_by_events_only(project: Inspector, get: Get, path: str) -> None:
    """A response varies by the cookie only if an event asked who acts, and no session is ever created."""
    for headers in ({}, {"Cookie": "sessionid=unknown-to-the-server"}):
        with tracking(SESSION, TRACKING, "django.contrib.auth.middleware.AuthenticationMiddleware"):
            answer = get(path, headers=headers)
        assert "sessionid=unknown" not in answer.headers.get("set-cookie", "")
        assert ("cookie" in answer.headers.get("vary", "").lower()) == (path != "/plain/1")
    assert events(project) == []


@both_handlers
def test_no_query_without_an_event(project: Inspector, get: Get) -> None:
    """A request without an event loads neither session nor user; a request with events loads each once."""
    queries: list[str] = []

    def count(execute: Any, sql: str, *rest: Any) -> Any:
        queries.append(sql)
        return execute(sql, *rest)

    def watch(connection: Any, **_: Any) -> None:
        connection.execute_wrappers[:] = [count]

    connection_created.connect(watch)
    try:
        get("/plain/1", "user-1")
        assert queries == []
        get("/work/1", "user-1")
        get("/async/1", "user-1")
    finally:
        connection_created.disconnect(watch)
    assert len([sql for sql in queries if "django_session" in sql]) == 2
    assert len([sql for sql in queries if "auth_user" in sql]) == 2
    assert events(project)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Django's own requests are cycles on Python 3.10")
@pytest.mark.parametrize("path", ["/plain/1", "/served/1", "/once-sync/1"])
def test_a_request_is_freed_at_once(project: Inspector, path: str) -> None:
    """The request, which may hold uploads, is freed with the end of the response: no garbage collection is needed."""
    left: list[ref[Any]] = []

    def see(sender: object, environ: Any, **_: object) -> None:
        del sender
        environ["wsgi.input"] = io.BytesIO()
        left.append(ref(environ["wsgi.input"]))

    gc.collect()
    gc.disable()
    request_started.connect(see)
    try:
        with tracking(TRACKING, user=lambda _: "user"):
            get(path)
        assert ts_autotrack.flush()
        assert [reference() for reference in left] == [None]
    finally:
        request_started.disconnect(see)
        gc.enable()
    assert [user for _, user, _ in events(project)] == ["user"] * (path != "/plain/1")


@both_handlers
@pytest.mark.parametrize("path", ["/work/1", "/async/1", "/stream/1", "/astream/1", "/invalid", "/nowhere"])
@mixed_streams
def test_answers_stay_the_same(project: Inspector, get: Get, path: str) -> None:
    """The middleware changes no answer."""
    del project
    with override_settings(MIDDLEWARE=[]):
        bare = get(path)
    with override_settings(MIDDLEWARE=[TRACKING]):
        assert get(path) == bare
