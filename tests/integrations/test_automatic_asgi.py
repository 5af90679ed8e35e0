"""ASGI applications and aiohttp's, tracked without a line of their code."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import litestar
import pytest
import starlette.applications
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from fastapi import FastAPI
from quart import Quart
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import ts_autotrack
from tests.integrations.asgi_requests import USERS, ById, get, user_of
from tests.integrations.automatic import events, track, undone
from ts_autotrack import track_feature
from ts_autotrack.integrations import _automatic
from ts_autotrack.integrations.aiohttp import tracking_middleware
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from tests.conftest import Inspector

__all__ = ["undone"]


@track_feature("report")
def report() -> str:
    """Use a feature."""
    return "report"


def fastapi_app() -> Any:
    """Return an application of FastAPI."""
    app = FastAPI()

    @app.get("/reports/{number}")
    async def show(number: int) -> str:
        await asyncio.sleep(0.001)
        return report() * number

    return app


def starlette_app() -> Any:
    """Return an application of Starlette."""

    async def show(_: Request) -> PlainTextResponse:
        return PlainTextResponse(report())

    return Starlette(routes=[Route("/reports/{number}", show)])


def litestar_app() -> Any:
    """Return an application of Litestar."""

    @litestar.get("/reports/{number:int}")
    async def show(request: litestar.Request[Any, Any, Any]) -> str:
        return report() * int(request.path_params["number"])

    return litestar.Litestar([show])


def quart_app() -> Any:
    """Return an application of Quart."""
    app = Quart(__name__)

    @app.get("/reports/<int:number>")
    async def show(number: int) -> str:
        return report() * number

    return app


FRAMEWORKS = {
    "fastapi": (fastapi_app, "/reports/{number}"),
    "starlette": (starlette_app, "/reports/{number}"),
    "litestar": (litestar_app, "/reports/{number:int}"),
    "quart": (quart_app, "/reports/<int:number>"),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_each_request_has_its_own_user(inspector: Inspector, name: str) -> None:
    """20 users at a time, in an application that exists already: each event has its user, by name and by route."""
    make, template = FRAMEWORKS[name]
    app = make()
    track(name, {f"GET {template}": "report_view"}, user=user_of)
    assert inspect.iscoroutinefunction(app.__call__)  # uvicorn asks this
    assert {answer.status_code for answer in get(app, "/reports/1", users=USERS)} == {200}
    assert events(inspector) == sorted((name, user) for name in ("report", "report_view") for user in USERS)


def test_fastapi_and_starlette_together_count_once(inspector: Inspector) -> None:
    """FastAPI is a Starlette: with both integrations a request is opened once, also in a mounted application."""
    for name in ("fastapi", "starlette"):
        track(name, {"GET /reports/{number}": "report_view", "GET /sub/reports/{number}": "sub"}, user=lambda: "ann")
    app = fastapi_app()
    app.mount("/sub", starlette_app())
    get(app, "/reports/1", "/sub/reports/1")
    assert events(inspector) == [("report", "ann"), ("report", "ann"), ("report_view", "ann"), ("sub", "ann")]


@pytest.mark.parametrize("mounted", [False, True])
def test_application_s_own_middleware_wins(
    inspector: Inspector, caplog: pytest.LogCaptureFixture, *, mounted: bool
) -> None:
    """A middleware that the application adds names the user and the features; a warning tells of the others."""
    track("fastapi", {"GET /reports/{number}": "wrong", "GET /sub/reports/{number}": "wrong"}, user=lambda: "wrong")
    app = served = fastapi_app()
    app.add_middleware(TrackingMiddleware, user=user_of, features={"GET /reports/{number}": "report_view"})
    if mounted:
        served = FastAPI()
        served.mount("/sub", app)
    get(served, "/sub/reports/1" if mounted else "/reports/1", users=["ann"])
    assert events(inspector) == [("report", "ann"), ("report_view", "ann")]
    assert "Name them in `features=` of that integration" in caplog.text


def test_wrapped_application_is_opened_once(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A middleware around the application leaves nothing to do, and `bind_user` still names the user.

    A warning tells that the routes in the settings are not tracked.
    """
    track("starlette", {"GET /reports/{number}": "report_view"}, user=lambda: "wrong")
    get(TrackingMiddleware(starlette_app(), user_of), "/reports/1", users=["ann"])
    assert events(inspector) == [("report", "ann")]
    assert "Name them in `features=` of that integration" in caplog.text


def test_async_resolver_is_awaited(inspector: Inspector) -> None:
    """The function named in the settings may be a coroutine function, with the connection scope or without."""

    async def ann() -> str:
        await asyncio.sleep(0)
        return "ann"

    track("starlette", user=ann)
    get(starlette_app(), "/reports/1")
    track("fastapi", user=ById())
    get(fastapi_app(), "/reports/1", users=["bob"])
    assert events(inspector) == [("report", "ann"), ("report", "bob")]


class Member(BaseUser):
    """User of an application, with an id."""

    is_authenticated = True

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def identity(self) -> str:
        """The id."""
        return self.name


class Backend(AuthenticationBackend):
    """Authentication by a header."""

    async def authenticate(self, conn: Any) -> tuple[AuthCredentials, BaseUser] | None:
        """Return the user."""
        name = conn.headers.get("x-user")
        user = SimpleUser(name) if name == "program" else Member(name or "")
        return None if name is None else (AuthCredentials(), user)


def test_starlette_s_user_acts(inspector: Inspector) -> None:
    """The user of AuthenticationMiddleware acts if its class defines an identity; SimpleUser and anonymous do not."""
    track("starlette")
    app = Starlette(
        routes=[Mount("/app", starlette_app())], middleware=[Middleware(AuthenticationMiddleware, backend=Backend())]
    )
    get(app, "/app/reports/1", users=["ann", "program"])
    get(app, "/app/reports/1")
    assert events(inspector) == [("report", "ann")]
    assert ts_autotrack.stats().dropped == {"unattributed": 2}


def aiohttp_get(app: web.Application, path: str, users: list[str]) -> None:
    """Request a path for all users at the same time."""

    async def all_of_them() -> None:
        async with TestClient(TestServer(app)) as client:
            answers = await asyncio.gather(*(client.get(path, headers={"X-User": user}) for user in users))
            assert {answer.status for answer in answers} == {200}

    asyncio.run(all_of_them())


def aiohttp_app() -> web.Application:
    """Return an application of aiohttp."""

    async def show(_: web.Request) -> web.Response:
        await asyncio.sleep(0.001)
        return web.Response(text=report())

    app = web.Application()
    app.router.add_get("/reports/{number}", show)
    return app


def test_aiohttp_applications_are_tracked(inspector: Inspector) -> None:
    """20 users at a time; the function named in the settings takes the request."""
    app = aiohttp_app()
    track("aiohttp", {"GET /reports/{number}": "report_view"}, user=lambda request: request.headers["X-User"])
    aiohttp_get(app, "/reports/1", USERS)
    assert events(inspector) == sorted((name, user) for name in ("report", "report_view") for user in USERS)


def test_aiohttp_application_s_own_middleware_wins(inspector: Inspector) -> None:
    """The user and the features of the middleware that the application adds count, and no others."""
    track("aiohttp", {"GET /reports/{number}": "wrong"}, user=lambda: "wrong")
    app = aiohttp_app()
    app.middlewares.append(
        tracking_middleware(lambda request: request.headers["X-User"], features={"GET /reports/{number}": "view"})
    )
    aiohttp_get(app, "/reports/1", ["ann"])
    assert events(inspector) == [("report", "ann"), ("view", "ann")]


def test_replaced_class_is_tracked(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool may have put a subclass into the framework's module: applications of both classes are tracked, once."""
    before = starlette_app()
    monkeypatch.setattr("starlette.applications.Starlette", type("Instrumented", (Starlette,), {}))
    track("starlette", user=user_of)
    for app in (before, starlette.applications.Starlette(routes=[Mount("/sub", before)])):
        get(app, "/reports/1" if app is before else "/sub/reports/1", users=["ann"])
    assert events(inspector) == [("report", "ann"), ("report", "ann")]


def test_integrations_can_be_undone() -> None:
    """`deactivate` puts back the framework's own method."""
    before = Starlette.__dict__["__call__"]
    track("starlette")
    assert Starlette.__dict__["__call__"] is not before
    _automatic.deactivate()
    assert Starlette.__dict__["__call__"] is before
