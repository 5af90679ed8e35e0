"""Quarantine: items rejected by the server, kept beside an outbox until somebody corrects, resends or deletes them."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import orjson

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.paths import create_private, file_size, set_aside
from ts_autotrack.typing import RejectedItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE = "rejected.db"
"""Name of the file."""
MAX_BYTES = 64_000_000
"""Bytes of the file from which on rejected items are only counted and logged, until somebody purges the quarantine."""
LOCK_TIMEOUT = 0.02
"""Seconds to wait for another process. With durability="event" a caller may be waiting, too."""
MAX_WAITING = 1_000
"""Items in memory while the file cannot be written; the oldest make room."""

CREATE = """
CREATE TABLE IF NOT EXISTS rejected (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL,         -- the endpoint
    event_id TEXT UNIQUE,       -- the item's context.event_id
    item TEXT NOT NULL,         -- JSON
    reason TEXT NOT NULL,       -- the server's own words
    rejected_at TEXT NOT NULL
)
"""
INSERT = "INSERT OR REPLACE INTO rejected (path, event_id, item, reason, rejected_at) VALUES (?, ?, ?, ?, ?)"
READ = "SELECT id, path, item, reason, rejected_at FROM rejected ORDER BY id"
DELETE = "DELETE FROM rejected WHERE id = ?"

BROKEN = (
    "{} cannot be written to ({}): items that the server rejects wait in memory until it can, and are lost with the "
    "process if it cannot"
)
FULL = (
    "{} is full: items that the server rejects are only counted and logged. Look at the items with `ts-autotrack "
    "outbox list`, then run `ts-autotrack outbox purge`."
)


class Quarantine:
    """The table `rejected` in a file shared by all processes of an outbox. The file is open only while in use.

    Attributes:
        path: Path of the file.
    """

    def __init__(self, directory: str, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._lock_timeout = lock_timeout
        self.path = os.path.join(directory, FILE)
        self._waiting: deque[RejectedItem] = deque(maxlen=MAX_WAITING)  # items not yet written

    def keep(self, items: list[RejectedItem]) -> None:
        """Write items, or hold the items in memory until the file can be written. Never raises."""
        self._waiting.extend(items)
        self.retry()

    def retry(self) -> None:
        """Write the items in memory, in one transaction."""
        if self._waiting and self._write(list(self._waiting)):
            self._waiting.clear()

    def items(self, ids: Sequence[int] = ()) -> Iterator[tuple[int, RejectedItem]]:
        """Yield the items with the given ids, or all items, oldest first."""
        if os.path.exists(self.path):
            with self._connect() as database:
                for number, path, item, reason, rejected_at in database.execute(READ):
                    if not ids or number in ids:
                        yield number, RejectedItem(path, item, reason, rejected_at)

    def remove(self, ids: Sequence[int]) -> None:
        """Delete items."""
        with self._connect() as database:
            database.executemany(DELETE, [(number,) for number in ids])

    def _write(self, items: list[RejectedItem]) -> bool:
        """Write items, if necessary to a new file; return False if the disk does not work."""
        try:
            self._insert(items)
        except (sqlite3.OperationalError, OSError) as error:
            warn_once(("quarantine", str(error)), BROKEN.format(self.path, error))
            return False
        except sqlite3.DatabaseError as error:
            aside = set_aside(self.path)
            warn_once(("corrupt", aside), f"{self.path} cannot be read ({error}); it was set aside as {aside}")
            return not os.path.exists(self.path) and self._write(items)
        return True

    def _insert(self, items: list[RejectedItem]) -> None:
        """Insert items, unless the file is full. After a crash the same item may come twice and replaces itself.

        Raises:
            OSError: The file cannot be created.
            sqlite3.Error: The file cannot be written.
        """
        if not os.path.exists(self.path):
            with suppress(FileExistsError):  # another process was faster
                create_private(self.path)
        elif file_size(self.path) > MAX_BYTES:
            warn_once("quarantine_full", FULL.format(self.path))
            return
        with self._connect() as database:
            values = [(item.path, _event_id(item.item), item.item, item.reason, item.rejected_at) for item in items]
            database.executemany(INSERT, values)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=self._lock_timeout)) as database:
            database.execute("PRAGMA auto_vacuum = FULL")
            database.execute("PRAGMA journal_mode = WAL")  # a reader does not keep other processes from writing
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(CREATE)
            with database:
                yield database


def _event_id(item: str) -> str | None:
    try:
        return str(orjson.loads(item)["context"]["event_id"])
    except (ValueError, TypeError, LookupError):  # damaged on the disk
        return None
