"""The stream of entries: at once, in order, each once, over interruptions and restarts."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx

from tests.conftest import DEADLINE
from tests.inspector.conftest import KEY, TRACK, Stream, get, post
from tests.inspector.test_serve import start
from ts_autotrack.inspector import _stream
from ts_autotrack.inspector._reports import Reports
from ts_autotrack.inspector._store import Arrival, Store
from ts_autotrack.inspector._stream import Feed, Reader

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.conftest import Inspector

ARRIVAL = Arrival("/track", {}, 1, 200, {})


def test_entries_arrive_at_once(cleared: Inspector) -> None:
    """An event is on the stream within 100 ms of its request; so is a refused request, with field and reason."""
    with Stream(cleared.url) as stream, httpx.Client() as client:
        stream.skip_state()
        delays = []
        for number in range(20):
            item = {**TRACK, "user_id": f"u{number}"}
            began = time.monotonic()
            client.post(f"{cleared.url}/track", json=[item], headers=KEY)
            event, entry = stream.message()
            delays.append(time.monotonic() - began)
            assert (event, entry["item"]) == ("item", item)
        assert min(delays) < 0.1
        post(cleared, "/track", [TRACK, {"event_name": "e"}])
        event, entry = stream.message()
    assert (event, entry["kind"], entry["position"], entry["batch_size"]) == ("refused", "refused", 1, 2)
    assert (entry["field"], entry["reason"], entry["item"]) == ("user_id", "is required", {"event_name": "e"})


def test_reader_that_comes_back_misses_nothing(cleared: Inspector) -> None:
    """With Last-Event-ID a stream continues after the last message; events in bulk share messages."""
    with Stream(cleared.url) as stream:
        stream.skip_state()
        post(cleared, "/track", [{**TRACK, "user_id": f"{number}"} for number in range(1_000)])
        seen = stream.entries(1)
    post(cleared, "/track", [{**TRACK, "user_id": f"{number}"} for number in range(1_000, 1_500)])
    with Stream(cleared.url, stream.last_id) as stream:
        seen += stream.entries(1_500 - len(seen))
    assert [entry["user_id"] for entry in seen] == [f"{number}" for number in range(1_500)]
    assert [entry["id"] for entry in seen] == list(range(seen[0]["id"], seen[0]["id"] + 1_500))


def test_stream_tells_the_state(cleared: Inspector) -> None:
    """Faults, reports and a cleared store are on the stream when they change, and at its beginning."""
    last_id = get(cleared, "/entries")["last_id"]
    with Stream(cleared.url) as stream:
        store = stream.message()[1]["store"]
        stream.skip_state(hello=False)
        httpx.put(f"{cleared.url}/faults?fault=503:0.5")
        fault = {"kind": "503", "probability": 0.5, "text": ""}
        assert stream.message() == ("faults", {"faults": [fault]})
        httpx.put(f"{cleared.url}/faults")
        stream.message()
        httpx.post(f"{cleared.endpoint}/reports", json={"pid": 7, "program": "p"})
        event, report = stream.message()
        assert (event, report["pid"]) == ("report", 7)
        post(cleared, "/track", [TRACK])
        stream.message()
        httpx.delete(f"{cleared.url}/events")
        assert stream.message() == ("cleared", {"store": store})
    with Stream(cleared.url, f"{store}-{last_id}") as stream:
        assert [stream.message()[0] for _ in range(2)] == ["hello", "cleared"]


def test_another_store_is_told(cleared: Inspector) -> None:
    """A reader of another store's entries is told that these are gone, and reads this store from its beginning."""
    post(cleared, "/track", [TRACK])
    for foreign in ("12345678-3", "3" * 18, "nonsense"):
        with Stream(cleared.url, foreign) as stream:
            assert [stream.message()[0] for _ in range(2)] == ["hello", "cleared"]
            assert [entry["item"] for entry in stream.entries(1)] == [TRACK]


def test_restart_with_a_database(tmp_path: Path) -> None:
    """An open stream does not hold up the inspector's end; after a restart it continues where it was."""
    database = str(tmp_path / "events.db")
    process, url = start("--port", "0", "--db", database, "--quiet")
    with process, Stream(url) as stream:
        stream.skip_state()
        httpx.post(f"{url}/track", json=[{**TRACK, "user_id": "1"}, {**TRACK, "user_id": "2"}], headers=KEY)
        assert [entry["user_id"] for entry in stream.entries(2)] == ["1", "2"]
        process.send_signal(signal.SIGTERM)
        assert stream.message()[0] == "end"
        process.wait(DEADLINE)
    process, again = start("--port", url.rpartition(":")[2], "--db", database, "--quiet")
    with process:
        httpx.post(f"{again}/track", json=[{**TRACK, "user_id": "3"}], headers=KEY)
        with Stream(again, stream.last_id) as stream:
            assert [entry["user_id"] for entry in stream.entries(1)] == ["3"]
        assert httpx.get(f"{again}/counts").json() == {"accepted": 3, "refused": 0, "by_feature": {"e": 3}}
        assert sum(httpx.get(f"{again}/matrix").json()["cells"][0]["per_minute"]) == 3
        process.terminate()


def test_reader_holds_nothing_but_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not read costs no memory: entries are read from the store when the reader takes them."""
    monkeypatch.setattr(_stream, "PAGE", 3)
    monkeypatch.setattr(_stream, "LONGEST_PAUSE", 0)
    store, feed = Store(":memory:"), Feed()

    async def read() -> list[Any]:
        messages = Reader(store, Reports(), list, "").messages(feed)
        texts = [await anext(messages), await anext(messages)]
        for _ in range(4):
            store.add(ARRIVAL, [{**TRACK, "user_id": "u" * 10}] * 2)
            feed.wake()
        texts += [await anext(messages) for _ in range(3)]
        feed.close()
        assert [text async for text in messages] == []
        return [json.loads(text.partition(b"data: ")[2]) for text in texts[2:]]

    assert [[entry["id"] for entry in batch] for batch in asyncio.run(read())] == [[1, 2, 3], [4, 5, 6], [7, 8]]
    assert feed.readers == 0
    store.close()


def test_streams_are_limited(cleared: Inspector) -> None:
    """The 101st reader is refused; others go on, and a reader that leaves makes room."""
    streams: list[Stream] = []
    try:
        while len(streams) < _stream.MOST_READERS:
            streams.append(Stream(cleared.url))
            streams[-1].message()
        assert httpx.get(f"{cleared.url}/stream").status_code == 503
        post(cleared, "/track", [TRACK])
        assert streams[50].entries(1)[0]["item"] == TRACK
    finally:
        for stream in streams:
            stream.close()
    wait_for_room(cleared)


def wait_for_room(inspector: Inspector) -> None:
    """Wait until the inspector has noticed the end of streams."""
    end = time.monotonic() + DEADLINE
    while httpx.get(f"{inspector.url}/events/latest?user_id=nobody").status_code != 404:
        assert time.monotonic() < end
        threading.Event().wait(0.01)
