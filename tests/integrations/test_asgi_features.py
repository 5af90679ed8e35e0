"""The ASGI middleware, in process: responses, context and features by route."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import ts_autotrack
from ts_autotrack import flush, track, track_feature, user_context
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from tests.conftest import Inspector

from tests.integrations.asgi_requests import (
    connection,
    events,
    get,
    shop,
    user_of,
)


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
        response: JSONResponse = track_feature("page")(lambda: made[0]({}, status))()
        return response

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
        headers={
            "referer": "https://example.com/a?secret=1",
            "sec-ch-ua-mobile": "?1",
            "x-user-id": "evil",
            "cookie": "c=1",
        },
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


@pytest.mark.parametrize(
    "values",
    [[b"user.id=victim", b"user.id=me"], [b"a=\xff,user.id=vict\\x69m"], ["a=\u00fc,user.id=victim".encode()]],
)
def test_baggage_as_instrumentations_read_it(inspector: Inspector, values: list[bytes]) -> None:
    """OpenTelemetry's ASGI instrumentation takes the first of several headers, and may resolve escapes: not trusted."""
    from opentelemetry import baggage  # noqa: PLC0415
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415

    async def application(_: Any, __: Any, send: Any) -> None:
        assert baggage.get_baggage("user.id") == "victim"
        track("work")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    ts_autotrack.configure(baggage=True, endpoint=inspector.endpoint, api_key="test", flush_interval=0.05)
    scope, receive, send = connection(headers=[(b"baggage", value) for value in values])
    asyncio.run(OpenTelemetryMiddleware(TrackingMiddleware(application))(scope, receive, send))
    assert events(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


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


@pytest.mark.parametrize("elsewhere", [False, True])
def test_feature_s_event_inside_a_block_of_the_application(inspector: Inspector, elsewhere: bool) -> None:  # noqa: FBT001
    """A block around the sending names the user; sending from a context outside of the request changes nothing."""

    async def application(scope: Any, _: Any, send: Any) -> None:
        scope["route"] = Route("/", lambda _: PlainTextResponse(""))
        with user_context("jane"):
            await send({"type": "http.response.start", "status": 200})
            last = send({"type": "http.response.body"})
            await (outside.run(asyncio.ensure_future, last) if elsewhere else last)

    outside = contextvars.copy_context()
    app = TrackingMiddleware(application, lambda _: "joe", features={"GET /": "home"})
    asyncio.run(app(*connection()))
    assert events(inspector) == [("home", "joe" if elsewhere else "jane", None)]


def test_bad_features_raise_when_the_middleware_is_made() -> None:
    """A mistake in `features` is seen at start."""
    with pytest.raises(ValueError, match="METHOD /template"):
        TrackingMiddleware(shop(lambda: None), features={"/reports": "report"})


def test_bad_user_raises_when_the_middleware_is_made() -> None:
    """A user that is no callable is seen at start, not in each request."""
    user: Any = "jane"
    with pytest.raises(TypeError, match=r"user='jane'.*callable"):
        TrackingMiddleware(shop(lambda: None), user)


def test_route_that_cannot_be_read(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A fault while the route is read costs the feature's event, one message, and nothing else."""

    class Route:
        @property
        def path(self) -> str:
            raise RuntimeError

    async def application(scope: Any, _: Any, send: Any) -> None:
        scope["route"] = Route()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    app = TrackingMiddleware(application, user_of, features={"GET /": "home"})
    for _ in range(2):
        asyncio.run(app(*connection(user="jane")))
    assert events(inspector) == []
    assert [record.message for record in caplog.records if "could not be read" in record.message] == [
        "ts_autotrack: the route of a request could not be read, so its feature is missing: RuntimeError()"
    ]
