"""The endpoints that take events and reports."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from ts_autotrack._core.transports.console import describe
from ts_autotrack.inspector import _reports
from ts_autotrack.inspector._contract import BAD_REQUEST, ContractError, check_credentials, check_size, parse, warnings
from ts_autotrack.inspector._queries import as_json
from ts_autotrack.inspector._store import Arrival, Refusal

if TYPE_CHECKING:
    from starlette.datastructures import Headers
    from starlette.requests import Request
    from starlette.responses import Response

    from ts_autotrack.inspector._state import State

TOO_LARGE = 413
MOST_HEADERS, MOST_VALUE = 50, 500
"""Headers kept of a request, and characters of a header's value."""
MOST_TEXT = 20_000
"""Characters kept of a refused body or item, and of an answer."""
_SECRET = re.compile("auth|key|token|secret|cookie|password|credential|session|signature", re.IGNORECASE)


class Ingest:
    """Takes events and reports."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def take(self, request: Request) -> JSONResponse:
        """Answer POST /track, /identify and /group: keep the items, or refuse the request with the reason."""
        path = "/" + request.url.path.rpartition("/")[2]
        body = bytearray()
        try:
            check_credentials(request.headers)
            async for part in request.stream():
                body += part
                check_size(len(body))
            items = parse(path, request.headers.get("content-type", ""), bytes(body))
        except ContractError as error:
            return self._refuse(path, request.headers, bytes(body), error)
        except ClientDisconnect:  # a client killed in the middle of its request reads no answer
            return JSONResponse({"success": False}, BAD_REQUEST)
        answer = {
            "success": True,
            "response_id": str(uuid.uuid4()),
            "message": "Event tracked successfully",
            "warnings": warnings(path, items),
        }
        arrival = Arrival(path, _shown(request.headers), len(body), 200, _short(answer))
        state = self._state
        state.totals.add(path, *state.store.add(arrival, items))
        state.feed.wake()
        for item in items if state.show is not None else ():
            self._show(describe(path, item))
        return JSONResponse(answer)

    async def report(self, request: Request) -> Response:
        """Answer POST /reports: keep the report of a process. GET returns the reports."""
        state = self._state
        if request.method != "POST":
            return as_json({"processes": state.reports.all()})
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > _reports.MOST_BYTES:
                    message = f"the report has more than {_reports.MOST_BYTES} bytes"
                    return JSONResponse({"success": False, "message": message}, TOO_LARGE)
            state.reports.add(bytes(body))
        except (_reports.ReportError, ClientDisconnect) as error:
            return JSONResponse({"success": False, "message": str(error)}, BAD_REQUEST)
        state.feed.wake()
        return JSONResponse({"success": True})

    def _refuse(self, path: str, headers: Headers, body: bytes, error: ContractError) -> JSONResponse:
        self._show(f"{path} refused with {error.status}: {error}")
        answer = {"success": False, "message": str(error), "item": error.item, "field": error.field}
        item, size = _faulty_item(body, error.item)
        state = self._state
        state.store.refuse(
            Arrival(path, _shown(headers), len(body), error.status, _short(answer)),
            Refusal(item, error.item, size, error.reason[:MOST_TEXT], error.field),
        )
        state.totals.refuse()
        state.feed.wake()
        return JSONResponse(answer, error.status)

    def _show(self, line: str) -> None:
        if self._state.show is not None:
            self._state.show(line)


def _faulty_item(body: bytes, index: int | None) -> tuple[Any, int | None]:
    """Return the faulty item of a body, or the body's text, and the number of items; long ones are cut to a text."""
    try:
        items = json.loads(body)
        size = len(items) if isinstance(items, list) else None
        item = items if index is None else items[index]
        text = json.dumps(item)
    except (ValueError, RecursionError):
        return body[:MOST_TEXT].decode(errors="replace"), None
    return (item if index is not None and len(text) <= MOST_TEXT else text[:MOST_TEXT]), size


def _shown(headers: Headers) -> dict[str, str]:
    """Return the first headers of a request, with credentials masked."""
    return {
        name: f"*** ({len(value)} characters)" if _SECRET.search(name) else value[:MOST_VALUE]
        for name, value in headers.items()[:MOST_HEADERS]
    }


def _short(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer without the parts that are too long to keep."""
    return {name: value for name, value in answer.items() if len(json.dumps(value)) <= MOST_TEXT}
