"""Items that the server has refused for good, beside an outbox: for somebody to look at, mend and send again."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import orjson

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.paths import set_aside, size_of, touch
from ts_autotrack.typing import RejectedItem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE = "rejected.db"
MOST_REJECTED_BYTES = 64_000_000
"""Bytes of the file; past it rejected items are only counted and logged, until somebody purges it."""
LOCK_TIMEOUT = 0.02
"""Seconds to wait for another process; a caller with durability=event may be waiting, too."""
MOST_WAITING = 1_000
"""Items that wait in memory for a file that does not take them; the oldest make room."""

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
    """The table `rejected` in a file that all processes of an outbox share. Open only for the moment of its use.

    Attributes:
        path: The file.
    """

    def __init__(self, directory: str, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._lock_timeout = lock_timeout
        self.path = os.path.join(directory, FILE)  # noqa: PTH118 - pathlib costs an import
        self._waiting: deque[RejectedItem] = deque(maxlen=MOST_WAITING)  # what the file did not take

    def keep(self, item: RejectedItem) -> None:
        """Keep an item, at the latest when the file can be written to again; never raises."""
        self._waiting.append(item)
        self.tend()

    def tend(self) -> None:
        """Write what the file has not taken yet."""
        while self._waiting and self._takes(self._waiting[0]):
            self._waiting.popleft()

    def _takes(self, item: RejectedItem) -> bool:
        try:
            self._add(item)
        except (sqlite3.OperationalError, OSError) as error:
            warn_once(("quarantine", str(error)), _BROKEN.format(self.path, error))
            return False
        except sqlite3.DatabaseError as error:
            aside = set_aside(self.path)
            warn_once(("corrupt", aside), f"{self.path} cannot be read ({error}); it was set aside as {aside}")
            return not os.path.exists(self.path) and self._takes(item)  # noqa: PTH110
        return True

    def _add(self, item: RejectedItem) -> None:
        """Write an item, if there is room. Twice the same item, after a crash, is kept once.

        Raises:
            OSError: If the file cannot be made.
            sqlite3.Error: If it cannot be written to.
        """
        if not os.path.exists(self.path):  # noqa: PTH110
            with suppress(FileExistsError):  # another process is faster
                touch(self.path)
        elif size_of(self.path) > MOST_REJECTED_BYTES:
            warn_once("quarantine_full", _FULL.format(self.path))
            return
        with self._open() as database:
            database.execute(
                "INSERT OR REPLACE INTO rejected (path, event_id, item, reason, rejected_at) VALUES (?, ?, ?, ?, ?)",
                (item.path, _event_id(item.item), item.item, item.reason, item.rejected_at),
            )

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
        with closing(sqlite3.connect(self.path, timeout=self._lock_timeout)) as database:
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


_BROKEN = (
    "{} cannot be written to ({}): items that the server refuses wait in memory until it can, and are lost with the "
    "process if it cannot"
)
_FULL = (
    "{} is full: items that the server refuses are only counted and logged. Look at them with `ts-autotrack outbox "
    "list`, then `ts-autotrack outbox purge`."
)
