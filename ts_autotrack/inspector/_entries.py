"""Entries as the page and other programs read them, for orjson: items are fragments, which nobody parses again.

A message of 1,000 entries takes half the time of JSON made by SQLite.
"""

from __future__ import annotations

import heapq
from datetime import datetime, timedelta, timezone
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ts_autotrack.inspector._store import Store

FILTERS = ("kind", "request", "feature", "user", "account", "text")
"""Filters of GET /entries."""
MOST_BYTES = 2_000_000
"""Bytes of entries in one answer or message; a larger entry comes alone."""

_COLUMNS = (
    *("id", "received_at", "kind", "path", "request", "position", "batch_size", "item", "feature", "user_id"),
    *("group_id", "event_id", "notes", "reason", "field", "duplicate_of", "out_of_order"),
)
"""Keys of an entry, in this order."""
_KINDS = {
    "events": {"kind": "'accepted'", "reason": "NULL", "field": "NULL"},
    "refused": {
        "kind": "'refused'",
        "event_name": "NULL",
        "notes": "NULL",
        "duplicate_of": "NULL",
        "out_of_order": "0",
    },
}
"""Values of the columns that only the other table has."""
_NO_NOTES = orjson.Fragment(b"[]")


def _table(name: str) -> str:
    columns = (*_COLUMNS, "event_name")
    shown = ", ".join(f"{_KINDS[name][column]} AS {column}" if column in _KINDS[name] else column for column in columns)
    return f"SELECT {shown} FROM {name}"


_CONDITIONS = {
    "kind": "kind = :kind",
    "request": "request = :request",
    "feature": "instr(lower(coalesce(feature, '') || char(10) || coalesce(event_name, '')), :feature)",
    "user": "instr(lower(user_id), :user)",
    "account": "instr(lower(group_id), :account)",
    "text": "instr(lower(item || coalesce(reason, '')), :text)",
    "before": "id < :before",
    "after": "id > :after",
    "duplicate_of": "duplicate_of IS NOT NULL",
    "out_of_order": "out_of_order",
    "event_name is": "event_name = :event_name_is",
    "feature is": "feature = :feature_is",
    "user_id is": "user_id = :user_id_is",
    "group_id is": "group_id = :group_id_is",
}
"""Conditions by the name of their value."""


class Page:
    """Entries of one answer or message.

    Args:
        limit: Maximum number of entries; fewer if they are large.

    Attributes:
        entries: The entries.
    """

    def __init__(self, limit: int) -> None:
        self.entries: list[dict[str, Any]] = []
        self._limit = limit
        self._size = 0

    def take(self, found: Iterable[tuple[Any, ...]]) -> bool:
        """Add rows; return False if the page is full."""
        for row in islice(found, self._limit - len(self.entries)):
            entry = dict(zip(_COLUMNS, row, strict=False))
            self._size += len(entry["item"])
            if self.entries and self._size > MOST_BYTES:
                return False
            entry["item"] = orjson.Fragment(entry["item"])
            entry["notes"] = orjson.Fragment(entry["notes"]) if entry["notes"] else _NO_NOTES
            entry["out_of_order"] = bool(entry["out_of_order"])
            self.entries.append(entry)
        return len(self.entries) < self._limit


def after(store: Store, cursor: int, limit: int) -> list[dict[str, Any]]:
    """Return entries with a larger id than `cursor`, oldest first."""
    page = Page(limit)
    page.take(rows(store, {"after": cursor}, "ASC", limit))
    return page.entries


def newest(store: Store, values: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
    """Return entries, newest first.

    Args:
        store: Store of the entries.
        values: Values of conditions, by their names in `_CONDITIONS`.
        limit: Maximum number of entries; fewer if they are large.
    """
    page = Page(limit)
    page.take(rows(store, values, "DESC", limit))
    return page.entries


def rows(store: Store, values: Mapping[str, Any], order: str, limit: int) -> Iterator[tuple[Any, ...]]:
    """Yield the columns of entries, for a page; `order` is "ASC" or "DESC", by id."""
    tail = f"{_where(values)} ORDER BY id {order} LIMIT :limit"
    parameters = {**_values(values), "limit": limit}
    # Two queries: SQLite needs twice the time for a union of the tables.
    cursors = [store.database.execute(f"SELECT * FROM ({_table(name)}) {tail}", parameters) for name in _KINDS]
    try:
        yield from heapq.merge(*cursors, key=itemgetter(0), reverse=order == "DESC")
    finally:
        for cursor in cursors:
            cursor.close()


def cells(store: Store, values: Mapping[str, Any]) -> list[tuple[str, str | None, int, int, str]]:
    """Return feature, account, minute, number of events and time of the last event, of accepted items of /track.

    The minute of the arrival counts from 1970; 0 stands for all minutes more than half an hour ago.
    """
    conditions = _where({**values, "kind": "accepted"})
    minute = "CAST(strftime('%s', received_at) AS INTEGER) / 60"
    query = f"""
        SELECT feature, group_id, CASE WHEN received_at < :recent THEN 0 ELSE {minute} END, count(*), max(received_at)
        FROM ({_table("events")}) {conditions} AND path = '/track'
        GROUP BY 1, 2, 3 ORDER BY 3, 5
    """
    recent = datetime.now(timezone.utc) - timedelta(minutes=30)
    parameters = {**_values({**values, "kind": "accepted"}), "recent": f"{recent:%Y-%m-%dT%H:%M}"}
    return store.database.execute(query, parameters).fetchall()


def _where(values: Mapping[str, Any]) -> str:
    # SQLite's own lower() is fast, and knows the letters of ASCII only.
    conditions = [
        _CONDITIONS[name].replace("lower(", "lower_all(")
        if _searches(name) and not value.isascii()
        else _CONDITIONS[name]
        for name, value in values.items()
    ]
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of conditions; parts of texts in small letters."""
    return {
        name.replace(" ", "_"): value.encode(errors="replace").decode().lower() if _searches(name) else value
        for name, value in values.items()
    }


def _searches(name: str) -> bool:
    return "instr" in _CONDITIONS[name]
