"""Applications, users and requests for the tests of the ASGI middleware."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations

from ts_autotrack import bind_user, flush, track, track_feature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping

    from tests.conftest import Inspector

USERS = [f"user-{number}" for number in range(20)]


def user_of(scope: MutableMapping[str, Any]) -> str | None:
    """Return the user that the header `X-User` names."""
    return dict(scope["headers"]).get(b"x-user", b"").decode() or None


def account_of(user: str) -> str:
    """Return a user's account."""
    return f"account-{user}"


def get(
    app: Any, *paths: str, users: list[str] | None = None, headers: dict[str, str] | None = None
) -> list[httpx.Response]:
    """Request all paths for all users at the same time; return the responses."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(
                *(
                    client.get(path, headers={**(headers or {}), **({} if user is None else {"x-user": user})})
                    for user in users or (None,)
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
    app.get("/sync")(sync_work)
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


def connection(kind: str = "http", user: str | None = None, **scope: Any) -> tuple[dict[str, Any], Any, Any]:
    """Return the arguments of an ASGI application: a connection without a server."""
    headers = [] if user is None else [(b"x-user", user.encode())]

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.receive"}

    async def send(_: object) -> None: ...

    return {"type": kind, "method": "GET", "path": "/", "headers": headers, **scope}, receive, send


class ById:
    """An async resolver that is an object."""

    async def __call__(self, scope: MutableMapping[str, Any]) -> dict[str, object] | None:
        """Return the user that the header names, after a while."""
        await asyncio.sleep(0.001)
        name = user_of(scope)
        return None if name is None else {"user_id": name, "group_id": account_of(name)}
