"""Storage for received events: one SQLite table, readable with any SQLite tool."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timezone
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
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
FILTERS = ("path", "event_name", "user_id", "group_id", "event_id")
"""Columns of the table for the filters of GET /events."""
_FIND = """
SELECT id, received_at, path, item FROM events
WHERE id > :after
    AND (:path IS NULL OR path = :path)
    AND (:event_name IS NULL OR event_name = :event_name)
    AND (:user_id IS NULL OR user_id = :user_id)
    AND (:group_id IS NULL OR group_id = :group_id)
    AND (:event_id IS NULL OR event_id = :event_id)
ORDER BY id LIMIT :limit
"""


class Store:
    """Events in the order of their arrival. One thread uses a store."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(_SCHEMA)

    def add(self, path: str, items: list[dict[str, Any]]) -> None:
        """Store the items of one request, all or none."""
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        rows = [
            (
                now,
                path,
                item.get("event_name"),
                item["user_id"],
                item.get("context", {}).get("group_id"),
                item.get("context", {}).get("event_id"),
                json.dumps(item, ensure_ascii=False),
            )
            for item in items
        ]
        with self._database:
            self._database.executemany(
                "INSERT INTO events (received_at, path, event_name, user_id, group_id, event_id, item)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def find(self, filters: dict[str, str], after: int, limit: int) -> list[dict[str, Any]]:
        """Return events as `{"id", "received_at", "path", "item"}`, oldest first.

        Args:
            filters: Required values by column; keys outside of FILTERS are ignored.
            after: Lower bound of the id, exclusive.
            limit: Maximum number of events.
        """
        values = {column: filters.get(column) for column in FILTERS}
        rows = self._database.execute(_FIND, {**values, "after": after, "limit": limit})
        return [
            {"id": number, "received_at": at, "path": path, "item": json.loads(item)} for number, at, path, item in rows
        ]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
