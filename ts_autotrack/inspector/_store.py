"""Storage for received events and refused requests: SQLite tables, readable with any SQLite tool.

Entries are the events, in the table `events`, and the refused requests, in `refused`. Their ids are one series, in the
order of arrival, and never used twice.
"""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ts_autotrack.inspector._latest import Latest
from ts_autotrack.inspector._notes import notes_as_json
from ts_autotrack.inspector._owner import own
from ts_autotrack.inspector._schema import feature_of, prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEMORY = ":memory:"
LOCK_TIMEOUT = 1.0
"""Seconds to wait for another process that locks the database; meanwhile nobody is answered."""
KEPT_EVENTS, KEPT_BYTES = 200_000, 256_000_000
"""Events and their bytes in a database in memory; the oldest are deleted."""
KEPT_REFUSED, KEPT_REQUESTS = 10_000, 5_000
"""Refused requests, and requests with their headers and answers, in any database."""
SPARE = 20
"""The oldest events are deleted a twentieth at a time."""

FILTERS = ("path", "event_name", "user_id", "group_id", "event_id")
"""Columns of the table for the filters of GET /events."""
_FIND = """
SELECT id, received_at, path, item FROM events
WHERE id > :after AND id < :before
    AND (:path IS NULL OR path = :path)
    AND (:event_name IS NULL OR event_name = :event_name)
    AND (:user_id IS NULL OR user_id = :user_id)
    AND (:group_id IS NULL OR group_id = :group_id)
    AND (:event_id IS NULL OR event_id = :event_id)
ORDER BY id LIMIT :limit
"""
_INSERT = """
INSERT INTO events (id, received_at, path, event_name, user_id, group_id, event_id, item,
    request, position, batch_size, feature, notes, duplicate_of, out_of_order)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_REFUSED = "INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OLDEST = "SELECT max(id), sum(size) FROM (SELECT id, length(item) AS size FROM events ORDER BY id LIMIT ?)"
_FIRST = """
SELECT min(coalesce((SELECT min(id) FROM events), (SELECT min(id) FROM refused), 0),
    coalesce((SELECT min(id) FROM refused), (SELECT min(id) FROM events), 0))
"""
_LAST = """
SELECT max(coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(id) FROM refused), 0),
    (SELECT CAST(value AS INTEGER) FROM state WHERE name = 'cleared_through'))
"""

_COUNTS = {
    "accepted": "SELECT count(*) FROM events",
    "refused": "SELECT count(*) FROM refused",
    "duplicates": "SELECT count(*) FROM events WHERE duplicate_of IS NOT NULL",
    "out_of_order": "SELECT count(*) FROM events WHERE out_of_order",
}
_UNKNOWN = 2**63
"""Numbers from here on are larger than any row id of SQLite."""


class Arrival(NamedTuple):
    """A request, and the answer to it.

    Attributes:
        path: Endpoint: "/track", "/identify" or "/group".
        headers: Headers by name, credentials masked.
        size: Bytes of the body.
        status: HTTP status of the answer.
        answer: Body of the answer.
    """

    path: str
    headers: dict[str, str]
    size: int
    status: int
    answer: dict[str, Any]


class Refusal(NamedTuple):
    """The fault of a refused request.

    Attributes:
        item: Faulty item, or the body's text.
        position: Index of the item; None for a fault of the whole request.
        batch_size: Number of items; None if unknown.
        reason: Violation of the contract.
        field: Dotted name of the faulty field, if a field is at fault.
    """

    item: Any
    position: int | None
    batch_size: int | None
    reason: str
    field: str | None


class Store:
    """Entries in the order of their arrival. One thread uses a store.

    Attributes:
        name: Name of the database, random, kept in the database.
        database: Connection to the database.
    """

    def __init__(self, path: str) -> None:
        self._lock = own(path) if path != MEMORY else None
        self.database = sqlite3.connect(path, timeout=LOCK_TIMEOUT)
        self.database.create_function("lower_all", 1, _lower, deterministic=True)
        try:
            prepare(self.database)
        except sqlite3.Error:
            self.close()
            raise
        self.name = self._state("store")
        self._bounded = path == MEMORY
        self._count, self._bytes = self._one("SELECT count(*), coalesce(sum(length(item)), 0) FROM events")
        self._latest = Latest()

    @property
    def first_id(self) -> int:
        """Id of the oldest kept entry; 0 without entries."""
        return int(self._one(_FIRST)[0])

    @property
    def last_id(self) -> int:
        """Id of the latest entry, kept or deleted."""
        return int(self._one(_LAST)[0])

    @property
    def total(self) -> int:
        """Number of kept entries."""
        return int(self._count) + self.count("refused")

    @property
    def cleared_through(self) -> int:
        """Id of the latest call of `clear()`, larger than the ids of the deleted entries."""
        return int(self._state("cleared_through"))

    def add(self, arrival: Arrival, items: list[dict[str, Any]]) -> tuple[list[tuple[str, str | None]], str]:
        """Store the items of one request, all or none; return their features and accounts, and the time."""
        now = _now()
        self._latest.begin()
        texts = [json.dumps(item, ensure_ascii=False) for item in items]
        with self.database:
            self.database.execute("BEGIN IMMEDIATE")
            request, first = self._record(arrival, now), self.last_id + 1
            known = self._first_ids(items, first)
            rows = []
            for position, item in enumerate(items):
                context = item.get("context", {})
                event_id = context.get("event_id")
                earlier = known.get(event_id)
                duplicate_of = earlier if earlier != first + position else None
                late = duplicate_of is None and self._latest.is_late(item["user_id"], item["timestamp"])
                row = (
                    *(first + position, now, arrival.path, item.get("event_name"), item["user_id"]),
                    *(context.get("group_id"), event_id, texts[position], request, position, len(items)),
                    *(feature_of(arrival.path, item), notes_as_json(arrival.path, item), duplicate_of, late),
                )
                rows.append(row)
            self.database.executemany(_INSERT, rows)
        self._latest.stored()
        self._count += len(rows)
        self._bytes += sum(map(len, texts))
        self._make_room()
        return [(row[11], row[5]) for row in rows], now

    def refuse(self, arrival: Arrival, refusal: Refusal) -> None:
        """Store the fault of a refused request."""
        now = _now()
        item = refusal.item if isinstance(refusal.item, dict) else {}
        context = item.get("context")
        context = context if isinstance(context, dict) else {}
        ids = [_text(value) for value in (item.get("user_id"), context.get("group_id"), context.get("event_id"))]
        with self.database:
            self.database.execute("BEGIN IMMEDIATE")
            request, number = self._record(arrival, now), self.last_id + 1
            row = (
                *(number, now, arrival.path, *ids, json.dumps(refusal.item), request),
                *(refusal.position, refusal.batch_size, _text(feature_of(arrival.path, item))),
                *(_text(refusal.reason), _text(refusal.field)),
            )
            self.database.execute(_INSERT_REFUSED, row)
            self.database.execute(
                "DELETE FROM refused WHERE id <= (SELECT id FROM refused ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (KEPT_REFUSED,),
            )

    def find(self, filters: Mapping[str, str], after: int, limit: int, before: int) -> list[dict[str, Any]]:
        """Return events as `{"id", "received_at", "path", "item"}`, oldest first; items as fragments for orjson.

        Args:
            filters: Required values by column; keys outside of FILTERS are ignored.
            after: Lower bound of the id, exclusive.
            limit: Maximum number of events.
            before: Upper bound of the id, exclusive.
        """
        values = {column: filters.get(column) for column in FILTERS}
        rows = self.database.execute(_FIND, {**values, "after": after, "before": before, "limit": limit})
        return [
            {"id": number, "received_at": at, "path": path, "item": orjson.Fragment(item)}
            for number, at, path, item in rows
        ]

    def request(self, number: int) -> dict[str, Any] | None:
        """Return a request with its answer and the ids of its entries; None if the request is not kept."""
        if number >= _UNKNOWN:
            return None
        query = "SELECT received_at, path, headers, status, answer, size FROM requests WHERE number = ?"
        row = self.database.execute(query, (number,)).fetchone()
        if row is None:
            return None
        at, path, headers, status, answer, size = row
        ids = "SELECT id FROM events WHERE request = ?1 UNION ALL SELECT id FROM refused WHERE request = ?1 ORDER BY id"
        return {
            "number": number,
            "received_at": at,
            "path": path,
            "headers": json.loads(headers),
            "status": status,
            "answer": json.loads(answer),
            "size": size,
            "entries": [entry for (entry,) in self.database.execute(ids, (number,))],
        }

    def count(self, kind: str) -> int:
        """Return the number of kept entries that are "accepted", "refused", "duplicates" or "out_of_order"."""
        return int(self._one(_COUNTS[kind])[0])

    def clear(self) -> None:
        """Delete all entries and requests. Their ids are not used again."""
        last = self.last_id + 1  # an id of its own, so that readers which have seen all entries notice
        with self.database:
            for statement in ("DELETE FROM events", "DELETE FROM refused", "DELETE FROM requests"):
                self.database.execute(statement)
            self.database.execute("UPDATE state SET value = ? WHERE name = 'cleared_through'", (str(last),))
        self._count = self._bytes = 0
        self._latest.clear()

    def close(self) -> None:
        """Close the database, and leave its file to others."""
        self.database.close()
        if self._lock is not None:
            self._lock.close()

    def _record(self, arrival: Arrival, now: str) -> int:
        """Store the request itself; return its number."""
        row = (now, arrival.path, json.dumps(arrival.headers), arrival.status, json.dumps(arrival.answer), arrival.size)
        cursor = self.database.execute(
            "INSERT INTO requests (received_at, path, headers, status, answer, size) VALUES (?, ?, ?, ?, ?, ?)", row
        )
        number = cursor.lastrowid or 0
        self.database.execute("DELETE FROM requests WHERE number <= ?", (number - KEPT_REQUESTS,))
        return number

    def _first_ids(self, items: Sequence[dict[str, Any]], first: int) -> dict[str, int]:
        """Return the id of the first entry of each event id, kept entries and these items together."""
        ids: dict[str, int] = {}
        for position, item in enumerate(items):
            if event_id := item.get("context", {}).get("event_id"):
                ids.setdefault(event_id, first + position)
        found = self.database.execute(
            "SELECT event_id, min(id) FROM events WHERE event_id IN (SELECT value FROM json_each(?)) GROUP BY event_id",
            (json.dumps(list(ids)),),
        )
        ids.update(found)
        return ids

    def _make_room(self) -> None:
        """Delete the oldest events of a database in memory, if there are too many."""
        while self._bounded and (self._count > KEPT_EVENTS or self._bytes > KEPT_BYTES):
            number = max(1, self._count // SPARE)
            last, size = self._one(_OLDEST, number)
            with self.database:
                self.database.execute("DELETE FROM events WHERE id <= ?", (last,))
            self._count -= number
            self._bytes -= size

    def _state(self, name: str) -> str:
        return str(self._one("SELECT value FROM state WHERE name = ?", name)[0])

    def _one(self, query: str, *values: Any) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self.database.execute(query, values).fetchone()
        return row


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _text(value: Any) -> str | None:
    """Return a text that SQLite can keep; None for anything else."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else None
