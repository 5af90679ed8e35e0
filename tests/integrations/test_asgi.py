"""The ASGI middleware, in process: FastAPI and Starlette in the shapes that real applications have."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import ts_autotrack
from ts_autotrack import bind_user, current_user, flush, track, track_feature, user_context
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping

    from tests.conftest import Inspector

USERS = [f"user-{number}" for number in range(20)]


def user_of(scope: MutableMapping[str, Any]) -> str | None:
    """Return the user that the header `X-User` names."""
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None


def account_of(user: str) -> str:
    """Return a user's account."""
    return f"account-{user}"


def get(app: Any, *paths: str, users: list[str] | None = None, **headers: str) -> list[httpx.Response]:
    """Request all paths for all users at the same time; return the responses."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(
                *(
                    client.get(path, headers={**headers, **({} if user is None else {"x-user": user})})
                    for user in users or [None]
                    for path in paths
                )
            )

    return asyncio.run(all_of_them())


def events(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return feature (or name), user and account of all events, sorted."""
    assert flush(10)
    return sorted(
        (item["properties"].get("feature_name", item["event_name"]), item["user_id"], item["context"].get("group_id"))
        for item in inspector.items()
    )


def expected(*names: str) -> list[tuple[str, str, str | None]]:
    """Return an event of each name for each user."""
    return sorted((name, user, account_of(user)) for name in names for user in USERS)


def bound(request: Request) -> None:
    """Bind the user in a sync dependency, which runs in a thread pool."""
    user = request.headers["x-user"]
    bind_user(user, group_id=account_of(user))


def bound_and_yielded(request: Request) -> Iterator[None]:
    """Bind the user in a sync `yield` dependency, and track after the response."""
    bound(request)
    yield
    track("after_yield")


async def bound_by_coroutine(request: Request) -> AsyncIterator[None]:
    """Bind the user in an async `yield` dependency."""
    bound(request)
    await asyncio.sleep(0)
    yield
    track("after_async_yield")


@track_feature("sync_work")
def sync_work() -> None:
    """Do the work of a sync endpoint."""


@track_feature("async_work")
async def async_work() -> None:
    """Do the work of an async endpoint."""
    await asyncio.sleep(0.001)


@track_feature("sync_rows")
def sync_rows() -> Iterator[str]:
    """Stream from a thread pool."""
    yield from ("a", "b")


@track_feature("async_rows")
async def async_rows() -> AsyncIterator[str]:
    """Stream from the event loop."""
    yield "a"
    await asyncio.sleep(0.001)
    yield "b"


def shop(dependency: Callable[..., Any]) -> FastAPI:
    """Return an application whose endpoints of all kinds have a dependency that binds the user."""
    app = FastAPI(dependencies=[Depends(dependency)])
    app.get("/sync")(lambda: sync_work())
    app.get("/async")(async_work)

    @app.get("/sync-stream")
    def sync_stream() -> StreamingResponse:
        return StreamingResponse(sync_rows())

    @app.get("/async-stream")
    async def async_stream() -> StreamingResponse:
        return StreamingResponse(async_rows())

    @app.get("/background")
    def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(track, "sync_background")
        tasks.add_task(async_work)

    return app


PATHS = ("/sync", "/async", "/sync-stream", "/async-stream", "/background")
WORK = ("sync_work", "async_work", "sync_rows", "async_rows", "sync_background", "async_work")


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


class ById:
    """An async resolver that is an object."""

    async def __call__(self, scope: MutableMapping[str, Any]) -> dict[str, object] | None:
        await asyncio.sleep(0.001)
        name = user_of(scope)
        return None if name is None else {"user_id": name, "group_id": account_of(name)}


@pytest.mark.parametrize("user", [ById(), ById().__call__, lambda scope: ById()(scope)])
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


def connection(kind: str = "http", user: str | None = None, **scope: Any) -> tuple[dict[str, Any], Any, Any]:
    """Return the arguments of an ASGI application: a connection without a server."""
    headers = [] if user is None else [(b"x-user", user.encode())]

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.receive"}

    async def send(_: object) -> None: ...

    return {"type": kind, "method": "GET", "path": "/", "headers": headers, **scope}, receive, send


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


def test_error_response_is_no_use_of_the_feature(inspector: Inspector) -> None:
    """A tracked endpoint that returns a response of 400 or more has failed."""
    app = FastAPI()

    @app.get("/async/{status}")
    @track_feature("page")
    async def page(status: int) -> JSONResponse:
        return JSONResponse({}, status)

    @app.get("/sync/{status}")
    @track_feature("page")
    def sync_page(status: int) -> PlainTextResponse:
        return PlainTextResponse("", status)

    app.add_middleware(TrackingMiddleware, user=lambda _: "jane")
    get(app, *(f"/{kind}/{status}" for kind in ("sync", "async") for status in (200, 302, 400, 404, 500)))
    assert events(inspector) == [("page", "jane", None)] * 4


def test_response_class_of_a_module_that_is_loaded_later(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Response classes that appear while the application runs count, too."""
    app = FastAPI()

    @app.get("/")
    def load() -> None:
        monkeypatch.setitem(sys.modules, "loaded_late", ModuleType("loaded_late"))
        made.append(type("Late", (JSONResponse,), {}))

    @app.get("/{status}")
    def page(status: int) -> JSONResponse:
        return track_feature("page")(lambda: made[0]({}, status))()

    made: list[Any] = []
    app.add_middleware(TrackingMiddleware, user=lambda _: "jane")
    get(app, "/")
    get(app, "/200", "/404")
    assert events(inspector) == [("page", "jane", None)]


def test_raised_http_exception_is_no_use_of_the_feature(inspector: Inspector) -> None:
    """An endpoint that raises has failed."""
    app = FastAPI()

    @app.get("/")
    @track_feature("page")
    async def page() -> None:
        raise HTTPException(404)

    app.add_middleware(TrackingMiddleware, user=lambda _: "jane")
    get(app, "/")
    assert events(inspector) == []


def test_context_of_the_request(inspector: Inspector) -> None:
    """Referrer and device type stand in every event; no other header of the client does."""
    app = shop(lambda: None)
    app.add_middleware(TrackingMiddleware, user=lambda _: "jane")
    get(
        app,
        "/sync",
        **{"referer": "https://example.com/a?secret=1", "sec-ch-ua-mobile": "?1", "x-user-id": "evil", "cookie": "c=1"},
    )
    assert flush(10)
    (item,) = inspector.items()
    kept = {key: value for key, value in item["context"].items() if key not in {"event_id", "source"}}
    assert kept == {"referrer": "https://example.com/a", "device_type": "mobile"}


@pytest.mark.parametrize("trusted", [False, True])
def test_baggage_of_clients(inspector: Inspector, trusted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Baggage in a request's headers names the user only if the application says so."""
    from opentelemetry import baggage, context, propagate  # noqa: PLC0415

    async def application(scope: Any, _: Any, __: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        token = context.attach(propagate.extract(headers))
        assert baggage.get_baggage("user.id") == "jane"
        track("work")
        context.detach(token)

    ts_autotrack.configure(baggage=True, endpoint=inspector.endpoint, api_key="test", flush_interval=0.05)
    scope, receive, send = connection(headers=[(b"baggage", b"user.id=jane")])
    asyncio.run(TrackingMiddleware(application, trust_baggage=trusted)(scope, receive, send))
    assert events(inspector) == ([("work", "jane", None)] if trusted else [])


def test_features_by_route(inspector: Inspector) -> None:
    """A named route's feature is used by a response below 400, at any depth of routers and mounts."""
    from fastapi import APIRouter  # noqa: PLC0415

    def answer(number: int) -> JSONResponse:
        return JSONResponse({}, number)

    deep = APIRouter(prefix="/deep")
    deep.get("/{number}")(answer)
    reports = APIRouter(prefix="/reports")
    reports.get("/{number}")(answer)
    reports.include_router(deep)
    tenant = FastAPI()
    tenant.include_router(reports)
    app = FastAPI()
    app.include_router(reports, prefix="/v1")
    app.get("/new")(lambda: None)
    app.get("/{number}")(answer)
    app.mount("/tenants/{tenant}", tenant)
    app.mount("/pages", Starlette(routes=[Mount("/more", routes=[Route("/{name}", lambda _: PlainTextResponse(""))])]))
    features = {
        "GET /{number}": "number",
        "GET /v1/reports/{number}": "report",
        "* /v1/reports/deep/{number}": "deep_report",
        "GET /tenants/{tenant}/reports/{number}": "report_of_tenant",
        "GET /pages/more/{name}": "page",
        "POST /new": "never",
    }
    app.add_middleware(TrackingMiddleware, user=user_of, features=features)
    good = ("/200", "/v1/reports/201", "/v1/reports/deep/302", "/tenants/acme/reports/200", "/pages/more/x", "/new")
    bad = ("/404", "/v1/reports/500", "/v1/reports/deep/400", "/tenants/acme/reports/404", "/pages/x", "/nothing/x")
    get(app, *good, *bad, users=["jane"])
    get(app, *good)
    names = ["number", "report", "deep_report", "report_of_tenant", "page"]
    assert events(inspector) == sorted((name, "jane", None) for name in names)


def test_feature_s_event_is_captured_before_the_end_of_the_answer(inspector: Inspector) -> None:
    """A client that has the whole answer finds the event; a response that breaks off midway is no use."""
    sent: list[int] = []

    def streaming(*, breaks: bool) -> Any:
        async def application(scope: Any, _: Any, send: Any) -> None:
            scope["route"] = Route("/", lambda _: PlainTextResponse(""))
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            if breaks:
                raise OSError
            await send({"type": "http.response.body", "body": b"b"})

        return TrackingMiddleware(application, user_of, features={"GET /": "home"})

    async def send(_: object) -> None:
        sent.append(ts_autotrack.stats().accepted)

    async def serve() -> None:
        scope, receive, _ = connection(user="jane")
        await streaming(breaks=False)(dict(scope), receive, send)
        with contextlib.suppress(OSError):
            await streaming(breaks=True)(dict(scope), receive, send)

    asyncio.run(serve())
    assert sent == [0, 0, 1, 1, 1]
    assert events(inspector) == [("home", "jane", None)]


def test_bad_features_raise_when_the_middleware_is_made() -> None:
    """A mistake in `features` is seen at start."""
    with pytest.raises(ValueError, match="METHOD /template"):
        TrackingMiddleware(shop(lambda: None), features={"/reports": "report"})


def test_library_that_is_off(inspector: Inspector) -> None:
    """Without a key the application answers as ever."""
    ts_autotrack.shutdown(1)
    app = shop(bound)
    app.add_middleware(TrackingMiddleware, user=user_of, features={"GET /sync": "page"})
    assert {answer.status_code for answer in get(app, *PATHS, users=USERS)} == {200}
    assert inspector.items() == []


def current(request: Request) -> Annotated[str, "user"]:
    """Return the acting user as the library sees it."""
    bound(request)
    return str(current_user().user_id)


def test_current_user_in_an_endpoint() -> None:
    """`current_user` tells the user that a dependency has bound."""
    app = FastAPI()
    app.get("/")(lambda user=Depends(current): {"given": user, "seen": current_user().user_id})
    app.add_middleware(TrackingMiddleware)
    assert get(app, "/", users=["jane"])[0].json() == {"given": "jane", "seen": "jane"}
