"""Searches in slices: the whole store is found, and the inspector does something else meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from starlette.requests import Request

from tests.inspector.conftest import TRACK
from ts_autotrack.inspector import _entries, _search
from ts_autotrack.inspector._search import Search
from ts_autotrack.inspector._store import Arrival, Refusal, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message

ARRIVAL = Arrival("/track", {}, 1, 200, {})


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with 300 entries, searched in slices of a few ids."""
    monkeypatch.setattr(_search, "SLICE", 0)
    monkeypatch.setattr(_search, "FIRST", 3)
    store = Store(":memory:")
    for number in range(30):
        items = [{**TRACK, "user_id": f"u{number}", "context": {"group_id": f"g{place % 2}"}} for place in range(9)]
        store.add(ARRIVAL, items)
        store.refuse(ARRIVAL, Refusal({"user_id": f"u{number}"}, 0, 1, "reason", None))
    yield store
    store.close()


def client(*, gone: bool = False) -> Request:
    """Return a request whose client waits for the answer, or has gone."""

    async def receive() -> Message:
        if not gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


def numbers(entries: list[dict[str, Any]]) -> list[int]:
    """Return the ids of entries."""
    return [entry["id"] for entry in entries]


def test_slices_find_what_one_query_finds(store: Store) -> None:
    """A search in slices finds what one query finds, in the same order, up to the same limit."""
    search = Search(store)
    for values in ({}, {"user": "u7"}, {"text": "reason"}, {"text": "nothing"}, {"after": 100, "before": 200}):
        for limit in (1, 10, 1_000):
            found = asyncio.run(search.newest(client(), values, limit))
            assert numbers(found) == numbers(_entries.newest(store, values, limit))
        matrix = asyncio.run(search.totals(client(), values)).matrix()
        expected = [cell[:2] + cell[3:4] for cell in _entries.cells(store, values)]
        assert sorted((cell["feature"], cell["account"], cell["count"]) for cell in matrix["cells"]) == sorted(expected)
    for limit in (5, 1_000):
        events = asyncio.run(search.events(client(), {"group_id": "g1"}, 20, limit))
        assert orjson.dumps(events) == orjson.dumps(store.find({"group_id": "g1"}, 20, limit, 2**62))
    assert numbers(asyncio.run(search.newest(client(), {}, 300))) == list(range(300, 0, -1))


def test_others_go_on_during_a_search(store: Store) -> None:
    """Between two slices other requests are served; a search whose client has gone ends."""
    search, rounds = Search(store), 0

    async def work() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def find(request: Request) -> list[dict[str, Any]]:
        other = asyncio.create_task(work())
        found = await search.newest(request, {"user": "u0"}, 100)
        other.cancel()
        return found

    assert len(asyncio.run(find(client()))) == 10
    assert rounds > 200
    assert asyncio.run(find(client(gone=True))) == []
