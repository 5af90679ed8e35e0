"""The inspector's web application."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from ts_autotrack._core.contract import REPORTS
from ts_autotrack.inspector import _entries, _page
from ts_autotrack.inspector._contract import ENDPOINTS
from ts_autotrack.inspector._fault import Faults
from ts_autotrack.inspector._guard import LocalOnly, Marked
from ts_autotrack.inspector._ingest import Ingest
from ts_autotrack.inspector._reports import Reports
from ts_autotrack.inspector._search import Search
from ts_autotrack.inspector._state import State
from ts_autotrack.inspector._store import FILTERS, Store
from ts_autotrack.inspector._stream import Feed
from ts_autotrack.inspector._totals import Totals
from ts_autotrack.inspector._views import Views

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from ts_autotrack.inspector._fault import Fault

UNAVAILABLE = 503

GREETING = """ts-autotrack inspector: a local server with ThriveStack's contract, for development and tests.

page             {url}/         (in a browser)
received events  {url}/events   (filters: {filters}; paging: after, limit)
live events      {url}/stream
active faults    {url}/faults
events of an app export THRIVESTACK_ENDPOINT={url}/api
"""


class Inspector:
    """The inspector as an ASGI application.

    Args:
        database: Path of the SQLite file, or ":memory:".
        show: Called with one line per received event; None without an output.
        faults: Faults active from the start.
    """

    def __init__(self, database: str, show: Callable[[str], None] | None = None, faults: Sequence[Fault] = ()) -> None:
        store = Store(database)
        totals = Totals(store.count("accepted"), store.count("refused"))
        totals.load(_entries.cells(store, {}))
        self._state = State(store, Search(store), totals, Reports(), list(faults), Feed(), show)
        failures = {sqlite3.Error: self._fail}
        app = Starlette(routes=_routes(self._state), exception_handlers=failures, lifespan=self._lifespan)
        self._application = Marked(LocalOnly(Faults(app, show, self._state.faults)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._application(scope, receive, send)

    def end_streams(self) -> None:
        """End all streams and waiting requests, before the server waits for open connections."""
        self._state.feed.close()

    async def _fail(self, request: Request, error: Exception) -> Response:
        """Answer a request while the database is locked, or its disk is full: the sender tries again."""
        message = f"the inspector's database fails: {error}"
        if self._state.show is not None:
            self._state.show(f"{request.url.path} answered with {UNAVAILABLE}: {message}")
        return JSONResponse({"success": False, "message": message}, UNAVAILABLE)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._state.store.close()


def _routes(state: State) -> list[Route | Mount]:
    ingest, views = Ingest(state), Views(state)
    routes = [Route(path, ingest.take, methods=["POST"]) for path in ENDPOINTS]
    routes += [
        Route(REPORTS, ingest.report, methods=["GET", "POST"]),
        Route("/", _greet),
        Route("/events", views.events, methods=["GET", "DELETE"]),
        Route("/events/latest", views.latest),
        Route("/entries", views.entries),
        Route("/requests/{number}", views.request),
        Route("/matrix", views.matrix),
        Route("/counts", views.counts),
        Route("/problems", views.problems),
        Route("/faults", views.faults, methods=["GET", "PUT"]),
        Route("/stream", views.stream),
    ]
    files = [Route(f"/{name}", _file) for name in _page.names()]
    # ThriveStack's base URL ends in /api. Paths without /api work, too.
    return [Mount("/api", routes=routes), *routes, *files]


async def _greet(request: Request) -> Response:
    """Answer GET / with the page, or with a short description for programs other than browsers."""
    if "text/html" in request.headers.get("accept", ""):
        return _page.file("index.html")
    url = f"{request.url.scheme}://{request.url.netloc}"
    return PlainTextResponse(GREETING.format(url=url, filters=", ".join(FILTERS)), headers=_page.HEADERS)


async def _file(request: Request) -> Response:
    """Answer with a file of the page."""
    return _page.file(request.url.path.rpartition("/")[2])
