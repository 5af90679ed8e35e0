"""Where the inspector keeps what arrived: one SQLite table, readable with any SQLite tool."""

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


class Store:
    """Events in the order of their arrival. Used from one thread."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(_SCHEMA)

    def add(self, path: str, items: list[dict[str, Any]]) -> None:
        """Keep the items of one request, all or none."""
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
            filters: Values that columns in FILTERS must have.
            after: Only events with a larger id.
            limit: The most events to return.
        """
        where = "".join(f" AND {column} = ?" for column in FILTERS if column in filters)
        rows = self._database.execute(
            f"SELECT id, received_at, path, item FROM events WHERE id > ?{where} ORDER BY id LIMIT ?",
            (after, *(filters[column] for column in FILTERS if column in filters), limit),
        )
        return [
            {"id": number, "received_at": at, "path": path, "item": json.loads(item)} for number, at, path, item in rows
        ]

    def close(self) -> None:
        """Close the database."""
        self._database.close()
