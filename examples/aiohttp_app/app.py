"""A shop of reports in aiohttp: one middleware names the user of every event."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from aiohttp import web

from ts_autotrack import track_feature
from ts_autotrack.integrations.aiohttp import tracking_middleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your application asks its database."""


def user_of(request: web.Request) -> tuple[str, str] | None:
    """Return the user and the account of a request."""
    return USERS.get(request.headers.get("Authorization", ""))


@track_feature("analytics_dashboard")
async def dashboard(request: web.Request) -> web.Response:
    """Show the dashboard: an event of the feature `analytics_dashboard`, but not after an answer of 401."""
    if user_of(request) is None:
        raise web.HTTPUnauthorized
    return web.json_response({"reports": 2})


@track_feature("report_view")
async def report(request: web.Request) -> web.Response:
    """Show a report; an answer of 404 is no use of the feature."""
    return web.Response(status=200 if request.match_info["number"] in {"1", "2"} else 404)


async def export(request: web.Request) -> web.Response:
    """Export a report: an event by `features=` below."""
    return web.Response(body=rows(request.match_info["number"]))


@track_feature("row_stream")
async def rows(number: str) -> AsyncIterator[bytes]:
    """Stream a report: an event at the end of the stream, of the same user."""
    yield f"report,{number}\n".encode()


app = web.Application(
    middlewares=[tracking_middleware(user_of, features={"POST /reports/{number}/export": "report_export"})]
)
app.router.add_get("/dashboard", dashboard)
app.router.add_get(r"/reports/{number:\d+}", report)
app.router.add_post(r"/reports/{number:\d+}/export", export)

if __name__ == "__main__":
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
