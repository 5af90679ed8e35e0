"""Parameters of the inspector's addresses, checked strictly, and answers in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import JSONResponse, Response

from ts_autotrack.inspector._contract import BAD_REQUEST, ENDPOINTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import QueryParams

MOST_ID = 2**63 - 1
"""Largest row id of SQLite."""
MOST_DIGITS = 1_000
"""Digits of a number in a query."""


def check_query(query: QueryParams, known: Sequence[str], *, repeated: bool = False) -> None:
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


def whole_number(query: QueryParams, name: str, default: int, most: int = MOST_ID) -> int:
    """Return a number of a query, at most `most`; raise ValueError for any other text."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        message = f"{name} is one of the whole numbers from 0"
        raise ValueError(message)
    return min(int(text), most)


def seconds(query: QueryParams, name: str, default: float, most: float) -> float:
    """Return seconds of a query, at most `most`; raise ValueError for any other text."""
    text = query.get(name, str(default))
    if not (text.isascii() and text.replace(".", "", 1).isdigit() and len(text) <= MOST_DIGITS):
        message = f"{name} is a number of seconds from 0 to {most:g}"
        raise ValueError(message)
    return min(float(text), most)


def bad_query(error: ValueError) -> JSONResponse:
    """Return the answer to a query that is refused."""
    return JSONResponse({"success": False, "message": str(error)}, BAD_REQUEST)


def as_json(data: Any) -> Response:
    """Return an answer in JSON, which may hold entries and reports."""
    return Response(orjson.dumps(data), media_type="application/json")
