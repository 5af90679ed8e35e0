"""The inspector's web application."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from ts_autotrack._core.transports.console import describe
from ts_autotrack.inspector._contract import (
    BAD_REQUEST,
    ENDPOINTS,
    ContractError,
    check_credentials,
    parse,
    warnings,
)
from ts_autotrack.inspector._fault import Faults
from ts_autotrack.inspector._fault import parse as parse_fault
from ts_autotrack.inspector._store import FILTERS, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.requests import Request

    from ts_autotrack.inspector._fault import Fault

MOST_ID = 2**63 - 1
"""Largest row id of SQLite."""
MOST_EVENTS = 10_000
"""Events in one answer to GET /events; `limit` lowers the number."""


def application(database: str, show: Callable[[str], None], faults: Sequence[Fault] = ()) -> Faults:
    """Return the inspector as an ASGI application.

    Args:
        database: Path of the SQLite file, or ":memory:".
        show: Called with one line per received event.
        faults: Faults active from the start.
    """
    inspector = _Inspector(database, show, faults)
    routes = [Route(path, inspector.ingest, methods=["POST"]) for path in ENDPOINTS]
    routes.append(Route("/events", inspector.events))
    routes.append(Route("/faults", inspector.switch_faults, methods=["GET", "PUT"]))
    # ThriveStack's base URL ends in /api. Paths without /api work, too.
    app = Starlette(routes=[Mount("/api", routes=routes), *routes], lifespan=inspector.lifespan)
    return Faults(app, show, inspector.faults)


class _Inspector:
    """The endpoints of the inspector."""

    def __init__(self, database: str, show: Callable[[str], None], faults: Sequence[Fault]) -> None:
        self._store = Store(database)
        self._show = show
        self.faults = list(faults)

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        self._store.close()

    async def ingest(self, request: Request) -> JSONResponse:
        """Answer POST /track, /identify and /group: keep the items, or refuse the request with the reason."""
        path = "/" + request.url.path.rpartition("/")[2]
        try:
            check_credentials(request.headers)
            items = parse(path, request.headers.get("content-type", ""), await request.body())
        except ContractError as error:
            self._show(f"{path} refused with {error.status}: {error}")
            answer = {"success": False, "message": str(error), "item": error.item, "field": error.field}
            return JSONResponse(answer, error.status)
        except ClientDisconnect:  # a client killed in the middle of its request reads no answer
            return JSONResponse({"success": False}, BAD_REQUEST)
        self._store.add(path, items)
        for item in items:
            self._show(describe(path, item))
        answer = {
            "success": True,
            "response_id": str(uuid.uuid4()),
            "message": "Event tracked successfully",
            "warnings": warnings(path, items),
        }
        return JSONResponse(answer)

    async def events(self, request: Request) -> JSONResponse:
        """Answer GET /events."""
        query = request.query_params
        if unknown := set(query) - {*FILTERS, "after", "limit"}:
            known = ", ".join((*FILTERS, "after", "limit"))
            return _bad_query(f"unknown parameter {min(unknown)!r}; known are {known}")
        try:
            after, limit = int(query.get("after", 0)), int(query.get("limit", MOST_EVENTS))
        except ValueError:
            return _bad_query("after and limit are whole numbers")
        found = self._store.find(dict(query), min(after, MOST_ID), max(0, min(limit, MOST_EVENTS)))
        return JSONResponse({"events": found})

    async def switch_faults(self, request: Request) -> JSONResponse:
        """Answer GET and PUT /faults: PUT ?fault=503&fault=reset:0.3 replaces the active faults, PUT alone ends all."""
        if request.method == "PUT":
            try:
                self.faults[:] = [parse_fault(text) for text in request.query_params.getlist("fault")]
            except ValueError as error:
                return _bad_query(str(error))
        return JSONResponse({"faults": [fault._asdict() for fault in self.faults]})


def _bad_query(message: str) -> JSONResponse:
    return JSONResponse({"success": False, "message": message}, BAD_REQUEST)
