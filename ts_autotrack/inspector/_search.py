"""Searches through all entries, in slices of a few milliseconds: the inspector takes events between two slices.

SQLite compares a text with 100,000 large items in more than a second.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ts_autotrack.inspector import _entries
from ts_autotrack.inspector._queries import MOST_ID
from ts_autotrack.inspector._totals import Totals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request

    from ts_autotrack.inspector._store import Store

SLICE = 0.005
"""Seconds that a slice is to take."""
FIRST = 20
"""Ids in the first slice: each item may have the size of a whole request."""
GROWTH = 4
"""A slice has at most this many times the ids of the slice before."""


class Search:
    """Reads the store in slices.

    A search ends early if its client has gone: a reader who types asks for a new answer with each letter.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    async def newest(self, request: Request, values: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        """Return the newest matching entries; arguments as of `_entries.newest`."""
        page = _entries.Page(limit)
        async for part in self._slices(request, values, newest_first=True):
            if not page.take(_entries.rows(self._store, {**values, **part}, "DESC", limit)):
                break
        return page.entries

    async def totals(self, request: Request, values: Mapping[str, Any]) -> Totals:
        """Return the counters of matching events."""
        totals = Totals()
        async for part in self._slices(request, values):
            totals.load(_entries.cells(self._store, {**values, **part}))
        return totals

    async def events(
        self, request: Request, filters: Mapping[str, str], after: int, limit: int
    ) -> list[dict[str, Any]]:
        """Return the oldest matching events; arguments as of `Store.find`."""
        found: list[dict[str, Any]] = []
        async for part in self._slices(request, {"after": after}):
            found += self._store.find(filters, part["after"], limit - len(found), part["before"])
            if len(found) >= limit:
                break
        return found

    async def _slices(
        self, request: Request, values: Mapping[str, Any], *, newest_first: bool = False
    ) -> AsyncIterator[dict[str, int]]:
        """Yield ranges of the present ids as conditions "after" and "before". The caller reads a range at once."""
        low = max(values.get("after", 0), self._store.first_id - 1)
        high = min(values.get("before", MOST_ID), self._store.last_id + 1)
        size = FIRST
        while high - low > 1:
            began = time.perf_counter()
            if newest_first:
                start = max(low, high - 1 - size)
                yield {"after": start, "before": high}
                high = start + 1
            else:
                end = min(high, low + 1 + size)
                yield {"after": low, "before": end}
                low = end - 1
            took = max(time.perf_counter() - began, 1e-6)
            size = max(1, min(size * GROWTH, int(size * SLICE / took)))
            async with self._turn:  # of many searches one goes on in each round of the event loop
                await asyncio.sleep(0)
            if await request.is_disconnected():
                return
