"""Django: who acts in a request, in sync and async views, under both handlers."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.test import RequestFactory, override_settings

import ts_autotrack
from tests.integrations.apps.django_app import (
    AUTHENTICATION,
    BACKEND,
    CHOSEN,
    SESSION,
    TRACKING,
    aperson,
    create_session,
    create_user,
    person,
    user_of,
)
from tests.integrations.django_requests import aget, both_handlers, database, events, get, project, tracking
from ts_autotrack._core import diagnostics
from ts_autotrack.integrations.django import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector
    from tests.integrations.django_requests import Get

__all__ = ["database", "project"]

OTHERS = [CHOSEN, SESSION, AUTHENTICATION]


@both_handlers
@pytest.mark.parametrize("path", ["/work/1", "/async/1", "/loaded/1"])
def test_the_signed_in_user_acts(project: Inspector, get: Get, path: str) -> None:
    """The events of a request go to `request.user`, in sync and async views; those of anonymous requests to nobody."""
    for user in ("user-1", None, "user-2"):
        assert get(path, user).status == 200
    work = [event for event in events(project) if event[0] == "work"]
    assert work == [("work", "user-1", "account-user-1"), ("work", "user-2", "account-user-2")]
    assert set(ts_autotrack.stats().dropped) == {"unattributed"}


@both_handlers
def test_a_user_is_named_by_the_primary_key(project: Inspector, get: Get) -> None:
    """Without a setting the id is `request.user.pk`, and there is no account."""
    with tracking():
        get("/async/1", "user-1")
    assert events(project) == [("work", str(user_of("user-1").pk), None)]


@both_handlers
@pytest.mark.parametrize("position", range(4))
def test_any_place_in_middleware_is_right(project: Inspector, get: Get, position: int) -> None:
    """The middleware may come before or after the session's and the authentication's."""
    with tracking(*OTHERS[:position], TRACKING, *OTHERS[position:], user="user.username"):
        for path in ("/work/1", "/async/1"):
            get(path, "user-1")
    assert {user for _, user, _ in events(project)} == {"user-1"}


@both_handlers
def test_a_second_entry_does_nothing(project: Inspector, get: Get) -> None:
    """A middleware that is listed twice tracks once: the user bound between the two is known to the view."""
    routes = {"GET work/<int:number>": "route"}
    with tracking(TRACKING, *OTHERS, TRACKING, user="user.username", features=routes):
        get("/work/1", "user-1")
    assert [name for name, *_ in events(project)] == ["work", "view", "route"]


@both_handlers
@pytest.mark.parametrize("path", ["/sign-in", "/asign-in"])
def test_a_login_view_s_events_belong_to_who_logged_in(project: Inspector, get: Get, path: str) -> None:
    """Events before `login()` wait for the end of the request and go to the user who logged in."""
    get(path)
    assert events(project) == [("work", "user-1", "account-user-1")] * 2


@both_handlers
def test_a_logout_view_s_events_belong_to_who_logged_out(project: Inspector, get: Get) -> None:
    """The user known at the first event acts until the end of the request."""
    get("/sign-out", "user-49")
    create_session("user-49")
    assert events(project) == [("work", "user-49", "account-user-49")] * 2


@both_handlers
def test_a_deleted_user_is_no_error(project: Inspector, get: Get) -> None:
    """A user who is deleted has no primary key: nobody acts, in this request and in later ones of the session."""
    with tracking():
        create_user("user-temporary")
        assert get("/delete", "user-temporary").status == 200
        assert get("/async/1", "user-temporary").status == 200
    assert events(project) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 2}


@both_handlers
def test_rest_framework_authenticates_after_the_middleware(project: Inspector, get: Get) -> None:
    """A user known by a token acts, and so does a user of the session."""
    from rest_framework.authtoken.models import Token  # noqa: PLC0415 - needs the settings

    token, _ = Token.objects.get_or_create(user=user_of("user-3"))
    get("/rest/1", headers={"Authorization": f"Token {token.key}"})
    get("/rest/1", "user-4")
    assert {(name, user) for name, user, _ in events(project)} == {
        (name, user) for name in ("work", "rest") for user in ("user-3", "user-4")
    }


def test_rest_framework_s_forced_authentication(project: Inspector) -> None:
    """`force_authenticate` of a project's own tests names the user."""
    from rest_framework.test import APIClient  # noqa: PLC0415 - needs the settings

    client = APIClient()
    client.force_authenticate(user_of("user-5"))
    client.get("/rest/1")
    assert {user for _, user, _ in events(project)} == {"user-5"}


@both_handlers
@pytest.mark.parametrize("source", [person, aperson], ids=["sync", "async"])
@pytest.mark.parametrize("path", ["/work/1", "/async/1", "/once/1", "/once-sync/1", "/stream/1"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_a_callable_names_the_user(project: Inspector, get: Get, source: Callable[..., Any], path: str) -> None:
    """A callable, sync or async, returns a mapping of `user_context`'s arguments, in views and streams of any kind."""
    with tracking(user=source):
        get(path, "user-6")
        get(path)
    assert {tuple(event[1:]) for event in events(project)} == {("user-6", "account-user-6")}
    assert {item["properties"]["plan"] for item in project.items()} == {"plan-user-6"}


async def agroup(request: Any) -> str:
    """Return an account by a coroutine function."""
    await asyncio.sleep(0)
    return f"async-{request.method}"


@both_handlers
@pytest.mark.parametrize(
    ("group", "account"),
    [
        ("scheme", "http"),
        ("user.email", None),
        ("tenant.slug", None),
        (lambda request: request.method, "GET"),
        (agroup, "async-GET"),
    ],
)
def test_the_account(project: Inspector, get: Get, group: object, account: str | None) -> None:
    """The account is at a path of attributes that begins at the request, or comes from a callable; or there is none."""
    with tracking(user="user.username", group=group):
        for path in ("/work/1", "/async/1"):
            get(path, "user-7")
    assert {event[1:] for event in events(project)} == {("user-7", account)}


@both_handlers
def test_an_account_that_came_with_the_user(project: Inspector, get: Get) -> None:
    """A user's callable that returns the account, too, goes before the setting `group`."""
    with tracking(user=lambda request: (request.user.username, "own") if request.user.pk else None, group="user.email"):
        get("/async/1", "user-8")
    assert events(project) == [("work", "user-8", "own")]


@both_handlers
@pytest.mark.parametrize("path", ["/work/1", "/async/1"])
def test_a_failing_callable_is_no_problem_of_the_request(
    project: Inspector, get: Get, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in a project's callable is logged, and the request is answered; its events have no user."""
    monkeypatch.setattr(diagnostics, "reraise", False)

    def fail(_request: Any) -> None:
        message = "no tenant"
        raise LookupError(message)

    with tracking(user="user.username", group=fail):
        assert get(path, "user-1").status == 200
    assert events(project) == []
    assert set(ts_autotrack.stats().dropped) == {"unattributed"}
    diagnostics.report()
    assert "LookupError" in caplog.text


@both_handlers
@pytest.mark.parametrize("path", ["/touch/1", "/served/1", "/async/1"])
def test_loading_the_user_is_tracked(project: Inspector, get: Get, path: str) -> None:
    """An event while the user is loaded waits for this user; the resolver does not ask without end."""
    with override_settings(AUTHENTICATION_BACKENDS=[BACKEND]):
        create_session("user-9", BACKEND)
        assert get(path, "user-9").status == 200
    create_session("user-9")
    found = events(project)
    assert ("load_user", "user-9", "account-user-9") in found
    assert ("work", "user-9", "account-user-9") in found
    assert {user for _, user, _ in found} == {"user-9"}
    assert ts_autotrack.stats().dropped == {}


@both_handlers
@pytest.mark.parametrize("trusted", [False, True])
def test_baggage_of_the_request(project: Inspector, get: Get, trusted: bool) -> None:  # noqa: FBT001 - a parameter
    """Ids in a request's own baggage header count with `trust_baggage` only."""
    from opentelemetry import baggage, context  # noqa: PLC0415
    from opentelemetry.baggage.propagation import W3CBaggagePropagator  # noqa: PLC0415

    header = {"baggage": "user.id=victim"}
    token = context.attach(W3CBaggagePropagator().extract(header))
    try:
        assert baggage.get_baggage("user.id") == "victim"
        with tracking(trust_baggage=trusted):
            get("/work/1", headers=header)
    finally:
        context.detach(token)
    assert {user for _, user, _ in events(project)} == ({"victim"} if trusted else set())


def test_one_of_several_baggage_headers_is_not_trusted(project: Inspector) -> None:
    """Under ASGI, OpenTelemetry reads the first of several headers; its ids are not trusted."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415

    body, sent = iter([{"type": "http.request", "body": b""}]), []

    async def receive() -> dict[str, Any]:
        for message in body:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/work/1",
        "query_string": b"",
        "http_version": "1.1",
        "headers": [(b"baggage", b"user.id=victim"), (b"baggage", b"user.id=me")],
    }
    asyncio.run(OpenTelemetryMiddleware(ASGIHandler())(scope, receive, send))
    assert sent[0]["status"] == 200
    assert events(project) == []


def test_async_mode_needs_no_thread() -> None:
    """In async mode the middleware and its hooks run on the event loop."""

    async def respond(_request: Any) -> HttpResponse:
        await middleware.process_view(_request, respond, (), {})
        return HttpResponse(str(threading.active_count()))

    threads = threading.active_count()
    middleware = TrackingMiddleware(respond)
    response = asyncio.run(middleware(RequestFactory().get("/")))
    assert response.content == str(threads).encode()
    assert threading.active_count() == threads


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_a_project_without_users(project: Inspector) -> None:
    """Without the authentication's middleware there is no `request.user`: the answers are the same, nobody acts."""
    with override_settings(MIDDLEWARE=[TRACKING], TS_AUTOTRACK={"group": "user.last_name"}):
        for send in (get, aget):
            for path in ("/work/1", "/async/1", "/stream/1"):
                assert send(path).status == 200
    assert events(project) == []
