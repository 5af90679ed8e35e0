"""The middleware of aiohttp: who acts in a request, and features by route."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

import ts_autotrack
from tests.integrations.test_grpc import events
from ts_autotrack import bind_user, track, track_feature
from ts_autotrack.integrations.aiohttp import tracking_middleware
from ts_autotrack.testing import capture_events

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from tests.conftest import Inspector

USERS = [f"user-{number}" for number in range(50)]


def user_of(request: web.Request) -> tuple[str, str] | None:
    """Return the user that the request names."""
    user = request.headers.get("X-User")
    return (user, f"account-{user}") if user else None


async def slow_user_of(request: web.Request) -> tuple[str, str] | None:
    """Return the user that the request names, after a while."""
    await asyncio.sleep(0.001)
    return user_of(request)


class ById:
    """An async resolver that is an object."""

    async def __call__(self, request: web.Request) -> tuple[str, str] | None:
        """Return the user that the request names, after a while."""
        return await slow_user_of(request)


RESOLVERS = [user_of, slow_user_of, ById()]


@track_feature("work")
async def work(_: web.Request) -> web.Response:
    """Do some work."""
    await asyncio.sleep(0.001)
    return web.Response(text="done")


@track_feature("rows")
async def rows() -> AsyncIterator[bytes]:
    """Stream."""
    for _ in range(2):
        track("row")
        yield b"x"


async def body(_: web.Request) -> web.Response:
    """Return a body that aiohttp reads after all middlewares."""
    return web.Response(body=rows())


async def written(request: web.Request) -> web.StreamResponse:
    """Write a stream."""
    response = web.StreamResponse()
    await response.prepare(request)
    async for row in rows():
        await response.write(row)
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Answer each message of a websocket."""
    connection = web.WebSocketResponse()
    await connection.prepare(request)
    async for message in connection:
        track("message")
        await connection.send_str(str(message.data))
    return connection


def application(
    *middlewares: Any, **handlers: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.Application:
    """Return an application with a GET route for each handler."""
    app = web.Application(middlewares=middlewares)
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}", handler)
    return app


Step: TypeAlias = "Callable[[Any], Coroutine[Any, Any, Any]]"
"""Part of a test: takes the client."""


def use(app: web.Application, *steps: Step) -> list[Any]:
    """Serve an application on loopback, with one keep-alive client; return the result of each step."""

    async def run() -> list[Any]:
        async with TestClient(TestServer(app)) as client:
            return [await step(client) for step in steps]

    return asyncio.run(run())


def get(path: str, user: str | None = None, method: str = "GET", **headers: str) -> Step:
    """Return a step that sends one request and returns its status."""

    async def send(client: Any) -> int:
        given = {**({} if user is None else {"X-User": user}), **headers}
        async with client.request(method, path, headers=given, allow_redirects=False) as response:
            await response.read()
            return int(response.status)

    return send


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_each_event_has_the_user_of_its_request(inspector: Inspector, resolver: Any) -> None:
    """50 users at the same time: handlers, streams that handlers write, and bodies that are iterators."""
    app = application(tracking_middleware(resolver), work=work, body=body, written=written)

    async def all_of_them(client: Any) -> None:
        paths = ("/work", "/body", "/written")
        await asyncio.gather(*(get(path, user)(client) for path in paths for user in (*USERS, None)))

    use(app, all_of_them)
    expected = ("work", *("rows", "row", "row") * 2)
    assert events(inspector) == sorted((name, user) for name in expected for user in USERS)
    assert all(item["context"]["group_id"] == f"account-{item['user_id']}" for item in inspector.items())
    assert ts_autotrack.stats().dropped == {"unattributed": len(expected)}


def test_binding_ends_with_the_request_on_its_connection(inspector: Inspector) -> None:
    """On one keep-alive connection, the user bound in a request is unknown in the next, also after a stream."""
    connections = set()

    async def handle(request: web.Request) -> web.Response:
        connections.add(request.transport)
        if user := user_of(request):
            bind_user(user[0])
        await work(request)
        return web.Response(body=rows())

    steps = [get("/handle", user) for user in ("ann", None, "bob", None)]
    use(application(tracking_middleware(), handle=handle), *steps)
    assert len(connections) == 1
    names = ("row", "row", "rows", "work")
    assert events(inspector) == sorted((name, user) for name in names for user in ("ann", "bob"))
    assert ts_autotrack.stats().dropped == {"unattributed": 8}


@pytest.mark.parametrize("resolver", RESOLVERS)
def test_events_of_a_websocket_do_not_wait_for_its_end(inspector: Inspector, resolver: Any) -> None:
    """A message's event is sent while the connection is open, also with an async resolver."""

    async def talk(client: Any) -> None:
        async with client.ws_connect("/socket", headers={"X-User": "ann"}) as connection:
            await connection.send_str("hello")
            assert (await connection.receive()).data == "hello"
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(None, events, inspector) == [("message", "ann")]

    use(application(tracking_middleware(resolver), socket=socket), talk)
    assert events(inspector) == [("message", "ann")]


def test_features_by_route(inspector: Inspector) -> None:
    """The key is the route's path; responses of 400 or more are no use, redirects are."""

    async def status(request: web.Request) -> web.Response:
        code = int(request.match_info["code"])
        if code == 302:
            raise web.HTTPFound(request.path)
        if code == 403:
            raise web.HTTPForbidden
        if code == 500:
            raise LookupError
        return web.Response(status=code)

    features = {"GET /status/{code}": "status", "* /sub/any": "any", "POST /other": "other", "GET /body": "export"}
    app = application(tracking_middleware(user_of, features=features), other=work, body=body)
    app.router.add_get(r"/status/{code:\d+}", status)
    sub = application(tracking_middleware(lambda _: "wrong", features={"GET /sub/any": "wrong"}), any=work)
    app.add_subapp("/sub", sub)
    codes = (200, 302, 403, 404, 500)
    paths = [*(f"/status/{code}" for code in codes), "/sub/any", "/other", "/missing", "/body"]
    statuses = use(app, *(get(path, "ann") for path in paths), get("/sub/any", "ann", "POST"))
    assert statuses == [*codes, 200, 200, 404, 200, 405]
    names = ("any", "export", "row", "row", "rows", "status", "status", "work", "work")
    assert events(inspector) == [(name, "ann") for name in names]


def test_error_response_of_a_tracked_handler_is_no_use(inspector: Inspector) -> None:
    """A tracked handler that returns a response of 400 or more, or raises, has failed."""

    @track_feature("page")
    async def page(request: web.Request) -> web.Response:
        code = int(request.match_info["code"])
        if code == 403:
            raise web.HTTPForbidden
        return web.json_response({}, status=code)

    app = application(tracking_middleware(user_of))
    app.router.add_get("/{code}", page)
    assert use(app, *(get(f"/{code}", "ann") for code in (200, 403, 404))) == [200, 403, 404]
    assert events(inspector) == [("page", "ann")]


def test_middlewares_after_belong_to_the_request(inspector: Inspector) -> None:
    """A login middleware after ours names the user for `user=`, or binds the user."""

    @web.middleware
    async def log_in(request: web.Request, handler: Any) -> web.StreamResponse:
        track("login")
        users[id(request)] = request.headers.get("X-User")
        try:
            response: web.StreamResponse = await handler(request)
        finally:
            del users[id(request)]
        return response

    users: dict[int, str | None] = {}
    app = application(tracking_middleware(lambda request: users.get(id(request))), log_in, work=work)
    use(app, get("/work", "ann"), get("/work"), get("/work", "bob"))
    assert events(inspector) == [("login", "ann"), ("login", "bob"), ("work", "ann"), ("work", "bob")]


def test_one_sub_application_under_two_roots(inspector: Inspector) -> None:
    """Two applications share a process and a middleware. Each request keeps its own user."""
    ours = tracking_middleware(user_of, features={"GET /work": "route"})
    first, second = application(ours, work=work), application(ours, work=work)
    use(first, get("/work", "ann"))
    use(second, get("/work", "bob"))
    use(application(ours, ours, work=work), get("/work", "eve"))
    assert events(inspector) == sorted((name, user) for name in ("route", "work") for user in ("ann", "bob", "eve"))


def test_cancelled_handler(inspector: Inspector) -> None:
    """The handler is cancelled when its client goes: no use of the route, but earlier events arrive."""
    entered, ended = asyncio.Event(), asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        track("begun")
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return web.Response()

    async def run() -> None:
        app = application(tracking_middleware(slow_user_of, features={"GET /wait": "waited"}), wait=wait)
        async with TestClient(TestServer(app)) as client:  # cancels handlers
            request = asyncio.create_task(get("/wait", "ann")(client))
            await asyncio.wait_for(entered.wait(), 10)
            request.cancel()
            await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(run())
    assert events(inspector) == [("begun", "ann")]


def test_context_and_baggage(inspector: Inspector) -> None:
    """Events have referrer and device; the request's own baggage is not trusted unless asked for."""
    from opentelemetry import baggage, context  # noqa: PLC0415 - as the instrumentation of the application does

    async def handle(request: web.Request) -> web.Response:
        context.attach(baggage.set_baggage("user.id", "mallory"))
        return await work(request)

    headers = {"Referer": "https://example.com/a?token=1", "Sec-CH-UA-Mobile": "?1", "baggage": "user.id=mallory"}
    for trusted in (False, True):
        use(application(tracking_middleware(trust_baggage=trusted), handle=handle), get("/handle", **headers))
    assert events(inspector) == [("work", "mallory")]
    assert (
        inspector.items()[0]["context"].items()
        >= {"referrer": "https://example.com/a", "device_type": "mobile"}.items()
    )


def test_exception_in_the_resolver_never_reaches_the_request(inspector: Inspector) -> None:
    """The events of the request are counted as unattributed."""

    def user(_: web.Request) -> str:
        raise LookupError

    assert use(application(tracking_middleware(user), work=work, body=body), get("/work"), get("/body")) == [200, 200]
    assert events(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 4}


def test_a_request_that_is_cancelled_before_its_body_ends() -> None:
    """A client may go away while an async `user` is awaited for a stream: no event waits for the end of the process."""

    async def run() -> list[tuple[str | None, str | None]]:
        asked = asyncio.Event()

        async def user(_: web.Request) -> str:
            if not asked.is_set():
                asked.set()
                await asyncio.Event().wait()
            return "u"

        @track_feature("body")
        async def tracked(_: web.Request) -> web.Response:
            return web.Response(body=rows())

        with capture_events() as captured:
            request = asyncio.ensure_future(tracking_middleware(user)(make_mocked_request("GET", "/"), tracked))
            await asked.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            return [(event.feature_name, event.user_id) for event in captured]

    assert asyncio.run(run()) == [("body", "u")]


def test_wrong_arguments_are_named() -> None:
    """Wrong users and features raise at once."""
    with pytest.raises(TypeError, match="user='ann'"):
        tracking_middleware("ann")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="METHOD /template"):
        tracking_middleware(features={"/work": "work"})
