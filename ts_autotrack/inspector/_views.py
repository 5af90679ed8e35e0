"""Endpoints that show the received events and their problems, for the page and for programs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from ts_autotrack.inspector import _entries
from ts_autotrack.inspector._fault import parse as parse_fault
from ts_autotrack.inspector._queries import MOST_ID, as_json, bad_query, check_query, seconds, whole_number
from ts_autotrack.inspector._store import FILTERS
from ts_autotrack.inspector._stream import Reader, arrival

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from ts_autotrack.inspector._state import State

NOT_FOUND, BUSY = 404, 503
MOST_EVENTS = 10_000
"""Events in one answer to GET /events; `limit` lowers the number."""
MOST_ENTRIES, USUAL_ENTRIES = 1_000, 100
"""Entries in one answer to GET /entries, at most and without `limit`."""
LONGEST_WAIT = 60.0
"""Seconds that GET /events/latest may wait."""
LOOK = 0.5
"""Seconds between two looks whether a waiting client is still there."""
PROBLEMS = 200
"""Entries of each kind in the answer to GET /problems."""
_EXACT = ("event_name", "feature", "user_id", "group_id")
"""Filters of GET /events/latest."""


class Views:
    """Shows received events, problems and figures."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def events(self, request: Request) -> Response:
        """Answer GET /events, and DELETE /events: delete all entries."""
        query = request.query_params
        try:
            check_query(query, () if request.method == "DELETE" else (*FILTERS, "after", "limit"))
            after, limit = whole_number(query, "after", 0), whole_number(query, "limit", MOST_EVENTS, MOST_EVENTS)
        except ValueError as error:
            return bad_query(error)
        if request.method == "DELETE":
            self._state.store.clear()
            self._state.totals.clear()
            self._state.feed.wake()
            return JSONResponse({"success": True})
        return as_json({"events": await self._state.search.events(request, query, after, limit)})

    async def latest(self, request: Request) -> Response:
        """Answer GET /events/latest: the newest event that matches, as soon as there is such an event."""
        query = request.query_params
        try:
            check_query(query, (*_EXACT, "after", "timeout"))
            after, timeout = whole_number(query, "after", 0), seconds(query, "timeout", 0, LONGEST_WAIT)
        except ValueError as error:
            return bad_query(error)
        wanted = {name: query[name] for name in _EXACT if name in query}
        if self._state.feed.full:
            return _busy()
        self._state.feed.readers += 1
        try:
            found = await self._wait_for(request, wanted, after, timeout)
        finally:
            self._state.feed.readers -= 1
        if found is not None:
            return as_json(found)
        described = " and ".join(f"{name}={value}" for name, value in wanted.items())
        message = f"no event{' with ' * bool(wanted)}{described} has arrived; waited {timeout:g} s"
        return JSONResponse({"success": False, "message": message}, NOT_FOUND)

    async def entries(self, request: Request) -> Response:
        """Answer GET /entries: accepted items and refused requests, newest first."""
        query = request.query_params
        try:
            check_query(query, (*_entries.FILTERS, "before", "limit"))
            values: dict[str, Any] = {name: query[name] for name in _entries.FILTERS if query.get(name)}
            if "request" in values:
                values["request"] = whole_number(query, "request", 0)
            values["before"] = whole_number(query, "before", MOST_ID)
            limit = whole_number(query, "limit", USUAL_ENTRIES, MOST_ENTRIES)
        except ValueError as error:
            return bad_query(error)
        store = self._state.store
        state = {"store": store.name, "last_id": store.last_id, "total": store.total}  # the stream shows later entries
        return as_json({**state, "entries": await self._state.search.newest(request, values, limit)})

    async def request(self, request: Request) -> Response:
        """Answer GET /requests/NUMBER: the request of an entry, and the answer to it."""
        number = request.path_params["number"]
        known = number.isascii() and number.isdigit() and len(number) <= len(str(MOST_ID))
        found = self._state.store.request(int(number)) if known else None
        if found is None:
            message = "this request is not kept; the inspector keeps the latest requests only"
            return JSONResponse({"success": False, "message": message}, NOT_FOUND)
        return JSONResponse(found)

    async def matrix(self, request: Request) -> Response:
        """Answer GET /matrix: events by feature and account."""
        filters = ("feature", "user", "account", "text")
        try:
            check_query(request.query_params, filters)
        except ValueError as error:
            return bad_query(error)
        values = {name: value for name, value in request.query_params.items() if value}
        totals = self._state.totals
        if values:
            totals = await self._state.search.totals(request, values)
        return as_json(totals.matrix())

    async def counts(self, _: Request) -> Response:
        """Answer GET /counts: accepted and refused, and accepted events by feature."""
        return JSONResponse(self._state.totals.counts())

    async def problems(self, _: Request) -> Response:
        """Answer GET /problems: refused requests, duplicates, late events, active faults, reports of processes."""
        state = self._state
        found = {
            name: {
                "count": state.store.count(name),
                "entries": _entries.newest(state.store, {column: value}, PROBLEMS),
            }
            for name, column, value in (
                ("refused", "kind", "refused"),
                ("duplicates", "duplicate_of", True),
                ("out_of_order", "out_of_order", True),
            )
        }
        return as_json({**found, "faults": state.active_faults(), "processes": state.reports.all()})

    async def faults(self, request: Request) -> Response:
        """Answer GET and PUT /faults: PUT ?fault=503&fault=reset:0.3 replaces the active faults, PUT alone ends all."""
        if request.method == "PUT":
            try:
                check_query(request.query_params, ("fault",), repeated=True)
                self._state.faults[:] = [parse_fault(text) for text in request.query_params.getlist("fault")]
            except ValueError as error:
                return bad_query(error)
            self._state.feed.wake()
        return JSONResponse({"faults": self._state.active_faults()})

    async def stream(self, request: Request) -> Response:
        """Answer GET /stream: entries as they arrive, as server-sent events."""
        state = self._state
        if state.feed.full:
            return _busy()
        last_id = request.headers.get("last-event-id") or request.query_params.get("after", "")
        reader = Reader(state.store, state.reports, state.active_faults, last_id)
        headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
        return StreamingResponse(reader.messages(state.feed), headers=headers, media_type="text/event-stream")

    async def _wait_for(
        self, request: Request, wanted: dict[str, str], after: int, timeout: float
    ) -> dict[str, Any] | None:
        """Return the newest matching entry, now or when it arrives; None if there is none, or the client has gone."""
        state = self._state
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            news, last_id = state.feed.news(), state.store.last_id
            values = {f"{name} is": value for name, value in wanted.items()}
            if found := await state.search.newest(request, {"kind": "accepted", **values, "after": after}, 1):
                return found[0]
            left = end - loop.time()
            if left <= 0 or state.feed.closed or await request.is_disconnected():
                return None
            await arrival(news, min(left, LOOK))
            after = max(after, last_id)


def _busy() -> Response:
    return PlainTextResponse("too many streams and waiting requests at the same time\n", BUSY)
