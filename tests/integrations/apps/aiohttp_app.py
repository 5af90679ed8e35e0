"""An aiohttp application under load: the user is named by the resolver, or bound in a handler."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from tests.integrations.apps.fastapi_app import identity
from ts_autotrack import bind_user, track_feature
from ts_autotrack.integrations.aiohttp import tracking_middleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def user_of(request: web.Request) -> dict[str, str] | None:
    """Return the identity that the header names, except for routes that bind their user."""
    user = request.headers.get("X-User")
    await asyncio.sleep(0)
    return None if user is None or request.path.startswith("/bound/") else identity(user)


@track_feature("work", capture=["number"])
async def work(number: int) -> int:
    """Be a feature."""
    await asyncio.sleep(0.001)
    return number


async def plain(request: web.Request) -> web.Response:
    """Do the work in the handler."""
    await work(int(request.match_info["number"]))
    return web.Response()


async def bound(request: web.Request) -> web.Response:
    """Bind the user, and do the work in a task."""
    if user := request.headers.get("X-User"):
        bind_user(**identity(user))
    await asyncio.create_task(work(int(request.match_info["number"])))
    return web.Response()


async def stream(request: web.Request) -> web.Response:
    """Do the work in a body that aiohttp reads after the middlewares."""

    async def body() -> AsyncIterator[bytes]:
        await work(int(request.match_info["number"]))
        yield b"done"

    return web.Response(body=body())


app = web.Application(middlewares=[tracking_middleware(user_of)])
app.router.add_get("/work/{number}", plain)
app.router.add_get("/bound/{number}", bound)
app.router.add_get("/stream/{number}", stream)
