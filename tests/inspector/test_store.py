"""The store of the inspector: files of earlier versions, and limits."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from tests.inspector.conftest import TRACK
from ts_autotrack.inspector import _entries, _store
from ts_autotrack.inspector._store import Arrival, Refusal, Store

if TYPE_CHECKING:
    from pathlib import Path


ARRIVAL = Arrival("/track", {}, 1, 200, {})
OLD_SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    received_at TEXT NOT NULL,
    path TEXT NOT NULL,
    event_name TEXT,
    user_id TEXT NOT NULL,
    group_id TEXT,
    event_id TEXT,
    item TEXT NOT NULL
)
"""
"""The table of version 0.1.0."""


def found(store: Store, limit: int) -> list[dict[str, Any]]:
    """Return the oldest events, as GET /events sends them."""
    events: list[dict[str, Any]] = orjson.loads(orjson.dumps(store.find({}, 0, limit, 2**63 - 1)))
    return events


def test_file_of_version_0_1_0_is_opened(tmp_path: Path) -> None:
    """Events of an older file are entries with features and notes; duplicates of them are found, and ids go on."""
    path = str(tmp_path / "old.db")
    item = {**TRACK, "event_name": "feature_used", "properties": {"feature_name": "a"}, "context": {"event_id": "1"}}
    with sqlite3.connect(path) as old:
        old.execute(OLD_SCHEMA)
        row = (7, "2026-01-01T00:00:00.000000Z", "/track", "feature_used", "u", None, "1", json.dumps(item))
        old.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    old.close()
    for expected in (8, 9):  # opened twice
        store = Store(path)
        assert [event["item"] for event in found(store, 1)] == [item]
        store.add(ARRIVAL, [item])
        entries = _entries.newest(store, {}, 10)
        assert (entries[0]["id"], entries[0]["duplicate_of"]) == (expected, 7)
        assert (entries[-1]["feature"], entries[-1]["request"]) == ("a", None)
        assert next(cell[:2] for cell in _entries.cells(store, {})) == ("a", None)
        store.close()


def test_another_program_s_table_is_left_alone(tmp_path: Path) -> None:
    """A database whose table `events` belongs to another program is refused, and stays as it is."""
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE events (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(sqlite3.DatabaseError, match="is not an inspector's"):
        Store(str(path))
    assert path.read_bytes() == before


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory forgets the oldest events by number and by size; ids go on, and the latest stay."""
    monkeypatch.setattr(_store, "KEPT_EVENTS", 100)
    store = Store(":memory:")
    for _ in range(30):
        store.add(ARRIVAL, [TRACK] * 10)
    assert 90 <= store.total <= 100
    assert (store.last_id, _entries.newest(store, {}, 1)[0]["id"]) == (300, 300)
    monkeypatch.setattr(_store, "KEPT_BYTES", 10_000)
    store.add(ARRIVAL, [{**TRACK, "properties": {"x": "y" * 1_000}}] * 20)
    assert sum(len(json.dumps(event["item"])) for event in found(store, 1_000)) <= 10_000
    assert store.last_id == 320
    store.close()


def test_file_keeps_all_events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file keeps every event; refused requests and requests are limited there, too."""
    for name in ("KEPT_EVENTS", "KEPT_REFUSED", "KEPT_REQUESTS"):
        monkeypatch.setattr(_store, name, 5)
    store = Store(str(tmp_path / "events.db"))
    for _ in range(10):
        store.add(ARRIVAL, [TRACK])
        store.refuse(ARRIVAL, Refusal("x", None, None, "reason", None))
    assert [store.count(kind) for kind in ("accepted", "refused")] == [10, 5]
    assert [store.request(number) is not None for number in (15, 16, 20)] == [False, True, True]
    store.close()


def test_clear_uses_no_id_twice(tmp_path: Path) -> None:
    """After a clear and a restart, new entries have new ids."""
    path = str(tmp_path / "events.db")
    store = Store(path)
    store.add(ARRIVAL, [TRACK] * 3)
    name = store.name
    store.clear()
    store.close()
    store = Store(path)
    store.add(ARRIVAL, [TRACK])
    assert store.name == name
    assert [event["id"] for event in store.find({}, 0, 9, 99)] == [5]
    store.close()


def test_failed_request_makes_no_event_late() -> None:
    """A request that the database refuses, and its sender repeats, holds no event out of order."""
    store = Store(":memory:")
    early, late = ({**TRACK, "timestamp": f"2024-10-20T15:51:3{second}.000000Z"} for second in (1, 2))
    full = "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
    store.database.execute(full)
    with pytest.raises(sqlite3.IntegrityError):
        store.add(ARRIVAL, [early, late])
    store.database.execute("DROP TRIGGER full")
    store.add(ARRIVAL, [early, late])
    assert store.count("out_of_order") == 0
    store.add(ARRIVAL, [early])
    assert store.count("out_of_order") == 1
    store.close()
