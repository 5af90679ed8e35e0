"""Tables of the inspector's database, and the upgrade of files of earlier versions."""

from __future__ import annotations

import json
import secrets
import sqlite3

from ts_autotrack.inspector._notes import notes_as_json

_EVENTS = """
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
_FIRST = {"id", "received_at", "path", "event_name", "user_id", "group_id", "event_id", "item"}
"""Columns of `events` in each version."""
_TABLES = """
CREATE TABLE IF NOT EXISTS refused (
    id INTEGER PRIMARY KEY,
    received_at TEXT NOT NULL,
    path TEXT NOT NULL,
    user_id TEXT,
    group_id TEXT,
    event_id TEXT,
    item TEXT NOT NULL,
    request INTEGER NOT NULL,
    position INTEGER,
    batch_size INTEGER,
    feature TEXT,
    reason TEXT NOT NULL,
    field TEXT
);
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    path TEXT NOT NULL,
    headers TEXT NOT NULL,
    status INTEGER NOT NULL,
    answer TEXT NOT NULL,
    size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_ADDED = {
    "request": "INTEGER",
    "position": "INTEGER",
    "batch_size": "INTEGER",
    "feature": "TEXT",
    "notes": "TEXT",
    "duplicate_of": "INTEGER",
    "out_of_order": "INTEGER",
}
"""Columns of `events` that files of version 0.1.0 lack."""
_INDEXES = """
CREATE INDEX IF NOT EXISTS events_by_event_id ON events (event_id);
CREATE INDEX IF NOT EXISTS events_by_request ON events (request);
CREATE INDEX IF NOT EXISTS refused_by_request ON refused (request);
CREATE INDEX IF NOT EXISTS events_duplicate ON events (id) WHERE duplicate_of IS NOT NULL;
CREATE INDEX IF NOT EXISTS events_late ON events (id) WHERE out_of_order;
"""


def prepare(database: sqlite3.Connection) -> None:
    """Create missing tables, and add missing columns to the table of an earlier version.

    Raises:
        sqlite3.Error: If the file is another program's, or cannot be written.
    """
    database.execute(_EVENTS)
    present = {row[1] for row in database.execute("PRAGMA table_info(events)")}
    if not present.issuperset(_FIRST):
        message = "its table `events` is not an inspector's"
        raise sqlite3.DatabaseError(message)
    database.executescript(_TABLES)
    with database:
        database.execute("BEGIN IMMEDIATE")
        for name in _ADDED.keys() - present:
            database.execute(f"ALTER TABLE events ADD COLUMN {name} {_ADDED[name]}")
        if "feature" not in present:
            database.create_function("feature_of", 2, lambda path, item: feature_of(path, json.loads(item)))
            database.create_function("notes_of", 2, lambda path, item: notes_as_json(path, json.loads(item)))
            database.execute("UPDATE events SET feature = feature_of(path, item), notes = notes_of(path, item)")
        database.execute("INSERT OR IGNORE INTO state VALUES ('store', ?)", (secrets.token_hex(4),))
        database.execute("INSERT OR IGNORE INTO state VALUES ('cleared_through', '0')")
    database.executescript(_INDEXES)


def feature_of(path: str, item: dict[str, object]) -> str:
    """Return the name of the feature, or of the event without a feature: "identify" and "group" for these paths."""
    properties = item.get("properties")
    feature = properties.get("feature_name") if isinstance(properties, dict) else None
    for name in (feature, item.get("event_name")):
        if isinstance(name, str) and name:
            return name
    return path.removeprefix("/")
