"""Items that the server has refused for good, beside an outbox: for somebody to look at, mend and send again."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import orjson

from ts_autotrack.typing import RejectedItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE = "rejected.db"
MOST_BYTES = 64_000_000
"""Bytes of the file; past it rejected items are only counted and logged, until somebody purges it."""

_CREATE = """
CREATE TABLE IF NOT EXISTS rejected (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,         -- the endpoint
    event_id TEXT UNIQUE,       -- the item's context.event_id
    item TEXT NOT NULL,         -- JSON
    reason TEXT NOT NULL,       -- the server's own words
    rejected_at TEXT NOT NULL
)
"""


class Quarantine:
    """The table `rejected` in a file that all processes of an outbox share. Open only for the moment of its use."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, FILE)  # noqa: PTH118 - pathlib costs an import

    def add(self, item: RejectedItem) -> bool:
        """Keep an item; return False if there is no room. Twice the same item, after a crash, is kept once.

        Raises:
            OSError: If the file cannot be made.
            sqlite3.Error: If it cannot be written to.
        """
        if os.path.exists(self.path) and os.stat(self.path).st_size > MOST_BYTES:  # noqa: PTH110, PTH116
            return False
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._open() as database:
            database.execute(
                "INSERT OR REPLACE INTO rejected (path, event_id, item, reason, rejected_at) VALUES (?, ?, ?, ?, ?)",
                (item.path, _event_id(item.item), item.item, item.reason, item.rejected_at),
            )
        return True

    def items(self, ids: Sequence[int] = ()) -> Iterator[tuple[int, RejectedItem]]:
        """Yield the items, or those with the given ids, oldest first."""
        if os.path.exists(self.path):  # noqa: PTH110
            with self._open() as database:
                rows = database.execute("SELECT id, path, item, reason, rejected_at FROM rejected ORDER BY id")
                for number, path, item, reason, rejected_at in rows:
                    if not ids or number in ids:
                        yield number, RejectedItem(path, item, reason, rejected_at)

    def remove(self, ids: Sequence[int]) -> None:
        """Delete items."""
        with self._open() as database:
            database.executemany("DELETE FROM rejected WHERE id = ?", [(number,) for number in ids])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=0.2)) as database:
            database.execute("PRAGMA auto_vacuum = FULL")
            database.execute("PRAGMA journal_mode = WAL")  # who reads does not keep a process from writing
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(_CREATE)
            with database:
                yield database


def _event_id(item: str) -> str | None:
    try:
        return str(orjson.loads(item)["context"]["event_id"])
    except (ValueError, TypeError, LookupError):  # damaged on the disk
        return None
