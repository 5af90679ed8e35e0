"""The ASGI middleware, in process: the acting user in FastAPI and Starlette, in the shapes that applications have."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import ts_autotrack
from ts_autotrack import bind_user, current_user, flush, track, user_context
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from tests.conftest import Inspector

from tests.integrations.asgi_requests import (
    PATHS,
    USERS,
    WORK,
    ById,
    account_of,
    async_work,
    bound,
    bound_and_yielded,
    bound_by_coroutine,
    connection,
    events,
    expected,
    get,
    shop,
    user_of,
)


@pytest.mark.parametrize("around", ["nothing", "above", "below", "above and below"])
@pytest.mark.parametrize(
    ("dependency", "after"),
    [(bound, None), (bound_and_yielded, "after_yield"), (bound_by_coroutine, "after_async_yield")],
)
def test_user_bound_in_a_dependency(
    inspector: Inspector, dependency: Callable[..., Any], after: str | None, around: str
) -> None:
    """A dependency of any kind binds the user for endpoints, streams and background tasks of its request only."""

    class PassOn(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
            return await call_next(request)

    app = shop(dependency)
    if "below" in around:
        app.add_middleware(PassOn)
    app.add_middleware(TrackingMiddleware)
    if "above" in around:
        app.add_middleware(PassOn)
    assert {answer.status_code for answer in get(app, *PATHS, users=USERS)} == {200}
    assert events(inspector) == expected(*WORK, *([after] * len(PATHS) if after else []))


@pytest.mark.parametrize("tracking", [False, True])
def test_block_in_a_middleware(inspector: Inspector, tracking: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A block of the application's own `BaseHTTPMiddleware` names the user of streams and background tasks, too."""

    class Named(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
            user = request.headers["x-user"]
            async with user_context(user, group_id=account_of(user)):
                return await call_next(request)

    app = shop(lambda: None)
    app.add_middleware(Named)
    if tracking:
        app.add_middleware(TrackingMiddleware)
    get(app, *PATHS, users=USERS)
    assert events(inspector) == expected(*WORK)


def test_user_by_the_connection_scope(inspector: Inspector) -> None:
    """The resolver names the user of every request; requests of nobody have no event."""

    def user(scope: MutableMapping[str, Any]) -> tuple[str, str] | None:
        name = user_of(scope)
        return None if name is None else (name, account_of(name))

    app = shop(lambda: None)
    app.add_middleware(TrackingMiddleware, user=user)
    get(app, *PATHS)
    get(app, *PATHS, users=USERS)
    assert events(inspector) == expected(*WORK)
    assert ts_autotrack.stats().dropped["unattributed"] == len(WORK)


@pytest.mark.parametrize("user", [ById(), ById().__call__, lambda scope: ById().__call__(scope)])
def test_async_resolver(inspector: Inspector, user: Callable[[Any], Any]) -> None:
    """An async resolver is awaited within the request, whatever kind of callable returns the coroutine."""
    app = shop(lambda: None)
    app.add_middleware(TrackingMiddleware, user=user)
    get(app, *PATHS, users=USERS)
    get(app, *PATHS)
    assert events(inspector) == expected(*WORK)


def test_async_resolver_is_asked_before_the_end_of_a_long_stream(inspector: Inspector) -> None:
    """Events of a stream that goes on are sent as soon as its next part is."""

    async def application(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        track("early")
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        assert flush(10)
        assert [item["event_name"] for item in inspector.items()] == ["early"]

    asyncio.run(TrackingMiddleware(application, ById())(*connection(user="jane")))


def test_login_s_own_event_belongs_to_the_user_who_logs_in(inspector: Inspector) -> None:
    """An event before `bind_user` waits for the user."""
    app = FastAPI()

    @app.post("/login")
    async def login() -> None:
        track("login_started")
        bind_user("jane", group_id="acme")

    app.add_middleware(TrackingMiddleware)
    asyncio.run(httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t").post("/login"))
    assert events(inspector) == [("login_started", "jane", "acme")]


def test_user_of_starlette_s_middlewares(inspector: Inspector) -> None:
    """Sessions and authentication that run below the tracking middleware name the user."""

    class ByHeader(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser]:
            return AuthCredentials([]), SimpleUser(conn.headers["x-user"])

    async def endpoint(request: Request) -> PlainTextResponse:
        request.session["account"] = account_of(request.user.username)
        track("work")
        return PlainTextResponse("")

    def user(scope: MutableMapping[str, Any]) -> tuple[str, str]:
        return scope["user"].username, scope["session"]["account"]

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[
            Middleware(TrackingMiddleware, user=user),
            Middleware(SessionMiddleware, secret_key="s"),
            Middleware(AuthenticationMiddleware, backend=ByHeader()),
        ],
    )
    get(app, "/", users=USERS)
    assert events(inspector) == expected("work")


def test_failing_resolver_is_not_the_request_s_problem(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that raises leaves the event unattributed and the response as it is."""
    monkeypatch.setattr("ts_autotrack._core.diagnostics.reraise", False)
    app = shop(lambda: None)
    app.add_middleware(TrackingMiddleware, user=lambda scope: scope["no such key"])
    assert [answer.status_code for answer in get(app, "/sync", "/async")] == [200, 200]
    assert events(inspector) == []
    assert ts_autotrack.stats().dropped["unattributed"] == 2


def test_request_begins_with_nobody(inspector: Inspector) -> None:
    """A request that is served in the context of an earlier request, or in a block of somebody else, is nobody's."""

    async def application(_: Any, __: Any, send: Any) -> None:
        track("work")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    async def serve() -> None:
        app = TrackingMiddleware(application, user_of)
        bind_user("earlier", group_id="g", plan="gold")
        with user_context("around", group_id="h"):
            await app(*connection())
            await app(*connection(user="jane"))
        assert current_user().user_id == "earlier"

    asyncio.run(serve())
    assert events(inspector) == [("work", "jane", None)]


def test_websocket_is_one_request(inspector: Inspector) -> None:
    """A user bound at any time of a connection holds until the connection's end, and not for the next connection."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        if user := user_of(scope):
            await asyncio.to_thread(bind_user, user, group_id=account_of(user))
        for _ in range(3):
            await receive()
            await asyncio.create_task(async_work())

    async def serve() -> None:
        app = TrackingMiddleware(application)
        for user in ("jane", None, "joe"):
            await app(*connection("websocket", user))

    asyncio.run(serve())
    assert events(inspector) == [("async_work", user, account_of(user)) for user in ("jane",) * 3 + ("joe",) * 3]


def test_websocket_that_only_receives_asks_an_async_resolver(inspector: Inspector) -> None:
    """Events of a connection without outgoing messages are sent while the connection is open."""

    async def application(_: Any, receive: Any, __: Any) -> None:
        track("message")
        await receive()
        assert events(inspector) == [("message", "jane", account_of("jane"))]

    asyncio.run(TrackingMiddleware(application, ById())(*connection("websocket", "jane")))


def test_lifespan_has_no_request(inspector: Inspector) -> None:
    """The lifespan is passed on as it is: a user bound there acts in the lifespan's own work."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (scope, receive, send) == arguments
        bind_user("system")
        track("started")

    arguments = connection("lifespan")
    asyncio.run(TrackingMiddleware(application, user_of)(*arguments))
    assert events(inspector) == [("started", "system", None)]
    assert arguments[0].keys() == connection("lifespan")[0].keys()


@pytest.mark.parametrize("error", [asyncio.CancelledError("gone"), OSError("gone"), KeyboardInterrupt()])
def test_disconnect_passes_unchanged(inspector: Inspector, error: BaseException) -> None:
    """The exception of a client that went away reaches the server; the events before it are sent."""

    async def application(_: Any, __: Any, send: Any) -> None:
        track("work")
        await send({"type": "http.response.start", "status": 200})

    def arguments() -> tuple[dict[str, Any], Any, Any]:
        async def send(_: object) -> None:
            raise error

        scope, receive, _ = connection(user="jane")
        return scope, receive, send

    async def serve() -> None:
        with pytest.raises(type(error)) as raised:
            await TrackingMiddleware(application, user_of, features={"GET /": "home"})(*arguments())
        assert raised.value is error
        assert current_user().user_id is None

    asyncio.run(serve())
    assert events(inspector) == [("work", "jane", None)]


def test_cancelled_request_sends_its_events(inspector: Inspector) -> None:
    """A request that its server cancels ends like every other, an async resolver included."""

    async def application(*_: Any) -> None:
        track("work")
        waiting.set()
        await asyncio.Event().wait()

    async def serve() -> None:
        task = asyncio.create_task(TrackingMiddleware(application, ById())(*connection(user="jane")))
        await waiting.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    waiting = asyncio.Event()
    asyncio.run(serve())
    assert events(inspector) == [("work", "jane", account_of("jane"))]


def test_mounted_applications_share_the_request(inspector: Inspector) -> None:
    """Of several middlewares around a request the outermost counts, and asks once."""
    asked: list[str] = []

    def outer(scope: MutableMapping[str, Any]) -> str | None:
        asked.append("outer")
        return user_of(scope)

    def inner(_: object) -> str:
        asked.append("inner")
        return "wrong"

    mounted = shop(lambda: None)
    mounted.add_middleware(TrackingMiddleware, user=inner, features={"GET /sync": "wrong"})
    app = FastAPI()
    app.mount("/mounted", mounted)
    app.add_middleware(TrackingMiddleware, user=inner)
    app.add_middleware(TrackingMiddleware, user=outer, features={"GET /mounted/sync": "sync_page"})
    get(app, "/mounted/sync", users=["jane"])
    assert events(inspector) == [("sync_page", "jane", None), ("sync_work", "jane", None)]
    assert asked == ["outer"]


def test_library_that_is_off(inspector: Inspector) -> None:
    """Without a key the application answers as ever."""
    ts_autotrack.shutdown(1)
    app = shop(bound)
    app.add_middleware(TrackingMiddleware, user=user_of, features={"GET /sync": "page"})
    assert {answer.status_code for answer in get(app, *PATHS, users=USERS)} == {200}
    assert inspector.items() == []


def current(request: Request) -> str:
    """Return the acting user as the library sees it."""
    bound(request)
    return str(current_user().user_id)


def test_current_user_in_an_endpoint() -> None:
    """`current_user` tells the user that a dependency has bound."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(user: Annotated[str, Depends(current)]) -> dict[str, str | None]:
        return {"given": user, "seen": current_user().user_id}

    app.add_middleware(TrackingMiddleware)
    assert get(app, "/", users=["jane"])[0].json() == {"given": "jane", "seen": "jane"}
