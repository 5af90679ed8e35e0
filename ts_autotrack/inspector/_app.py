"""The inspector's web application."""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from ts_autotrack._core.transports.console import describe
from ts_autotrack.inspector._contract import (
    BAD_REQUEST,
    ENDPOINTS,
    ContractError,
    check_credentials,
    check_size,
    parse,
    warnings,
)
from ts_autotrack.inspector._fault import Faults
from ts_autotrack.inspector._fault import parse as parse_fault
from ts_autotrack.inspector._guard import LocalOnly
from ts_autotrack.inspector._store import FILTERS, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.datastructures import QueryParams
    from starlette.requests import Request
    from starlette.types import ASGIApp

    from ts_autotrack.inspector._fault import Fault

MOST_ID = 2**63 - 1
"""Largest row id of SQLite."""
MOST_DIGITS = 1_000
"""Digits of a number in a query."""
MOST_EVENTS = 10_000
"""Events in one answer to GET /events; `limit` lowers the number."""
QUERY = (*FILTERS, "after", "limit")
"""Parameters of GET /events."""
GREETING = """ts-autotrack inspector: a local server with ThriveStack's contract, for development and tests.

received events  {url}/events   (filters: {filters}; paging: after, limit)
active faults    {url}/faults
events of an app export THRIVESTACK_ENDPOINT={url}/api
"""


def application(database: str, show: Callable[[str], None], faults: Sequence[Fault] = ()) -> ASGIApp:
    """Return the inspector as an ASGI application.

    Args:
        database: Path of the SQLite file, or ":memory:".
        show: Called with one line per received event.
        faults: Faults active from the start.
    """
    inspector = _Inspector(database, show, faults)
    routes = [Route(path, inspector.ingest, methods=["POST"]) for path in ENDPOINTS]
    routes.append(Route("/", inspector.greet))
    routes.append(Route("/events", inspector.events))
    routes.append(Route("/faults", inspector.switch_faults, methods=["GET", "PUT"]))
    # ThriveStack's base URL ends in /api. Paths without /api work, too.
    app = Starlette(routes=[Mount("/api", routes=routes), *routes], lifespan=inspector.lifespan)
    return LocalOnly(Faults(app, show, inspector.faults))


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
            items = parse(path, request.headers.get("content-type", ""), await _body(request))
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

    async def greet(self, request: Request) -> PlainTextResponse:
        """Answer GET / with a short description of the inspector and its addresses."""
        url = f"{request.url.scheme}://{request.url.netloc}"
        return PlainTextResponse(GREETING.format(url=url, filters=", ".join(FILTERS)))

    async def events(self, request: Request) -> JSONResponse:
        """Answer GET /events."""
        query = request.query_params
        try:
            _check_query(query, QUERY)
            after, limit = _whole_number(query, "after", 0), _whole_number(query, "limit", MOST_EVENTS)
        except ValueError as error:
            return _bad_query(str(error))
        found = self._store.find(dict(query), min(after, MOST_ID), min(limit, MOST_EVENTS))
        return JSONResponse({"events": found})

    async def switch_faults(self, request: Request) -> JSONResponse:
        """Answer GET and PUT /faults: PUT ?fault=503&fault=reset:0.3 replaces the active faults, PUT alone ends all."""
        if request.method == "PUT":
            try:
                _check_query(request.query_params, ("fault",), repeated=True)
                self.faults[:] = [parse_fault(text) for text in request.query_params.getlist("fault")]
            except ValueError as error:
                return _bad_query(str(error))
        return JSONResponse({"faults": [fault._asdict() for fault in self.faults]})


async def _body(request: Request) -> bytes:
    """Return the body of a request; raise ContractError as soon as too much of it has arrived."""
    body = bytearray()
    async for part in request.stream():
        body += part
        check_size(len(body))
    return bytes(body)


def _check_query(query: QueryParams, known: Sequence[str], *, repeated: bool = False) -> None:
    """Raise ValueError if a parameter is unknown or given twice, or the path is no endpoint."""
    if unknown := set(query) - set(known):
        message = f"unknown parameter {min(unknown)!r}; known are {', '.join(known)}"
        raise ValueError(message)
    for name in query if not repeated else ():
        if len(query.getlist(name)) > 1:
            message = f"{name} is given more than once"
            raise ValueError(message)
    if query.get("path", "/track") not in ENDPOINTS:
        message = f"path is one of {', '.join(ENDPOINTS)}"
        raise ValueError(message)


def _whole_number(query: QueryParams, name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        message = "after and limit are whole numbers from 0"
        raise ValueError(message)
    return int(text)


def _bad_query(message: str) -> JSONResponse:
    return JSONResponse({"success": False, "message": message}, BAD_REQUEST)
