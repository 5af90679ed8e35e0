"""One process's undelivered events in one SQLite file, in write-ahead mode.

Who has the file open owns it: SQLite's exclusive lock is held as long as it is open, and the operating system gives it
up with the process, however that ends. It is not inherited by forked children, which must never close such a
connection: SQLite would take itself for the owner and delete the log that the parent is writing.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS, PATHS
from ts_autotrack._core.outbox.paths import SUFFIX, delete, size_of, touch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ts_autotrack._core.delivery.queue import Item

SCHEMA_VERSION = 1
APPLICATION_ID = int.from_bytes(b"tsat", "big")
SEPARATOR = b",\n"
"""Between the items of a chunk: encoded JSON holds no line break, so a chunk can be taken apart without parsing."""
CHECKPOINT_BYTES = 8_000_000
"""Bytes of the write-ahead log from which on a commit writes it back, which waits for the disk (3 to 30 ms)."""
SHRINK_BYTES = 4_000_000
"""Free space in an empty file that is given back to the disk."""
EVENT_PAGE, CHUNK_PAGE = 4_096, 16_384
"""Page sizes: a commit writes at least one page. Measured: one event 5.5 us to 11.4; 1,000 events, written and deleted,
1.2 ms to 0.7."""

_CREATE = """
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,                -- in the order of the calls, never used again
    path TEXT NOT NULL,                    -- the endpoint
    first INTEGER NOT NULL,                -- number of the first item's record in its process
    items INTEGER NOT NULL,                -- how many
    body BLOB NOT NULL                     -- the items, each a JSON object, between them a comma and a line break
)
"""
_CONTENTS = f"total(items), total(length(body) - {len(SEPARATOR)} * (items - 1))"
_INSERT = "INSERT INTO chunks (id, path, first, items, body) VALUES (?, ?, ?, ?, ?)"
_MORE_ROWS = ", (?, ?, ?, ?, ?)"


class NewerSchemaError(Exception):
    """A file that a later version of the library has written."""


class Chunk(NamedTuple):
    """Items of one endpoint that were committed together."""

    id: int
    path: str
    first: int
    items: list[bytes]


class OutboxFile:
    """An open file, and with it the ownership of its events. Used by one thread at a time.

    Attributes:
        made: The files that were made in this process, or one that it descends from, and in which of them.
        opened: Likewise, those that are open.
        path: Where it is; the log is beside it, with "-wal" at the end.
        pending: Events in it.
        size: Bytes of these.
        ours: Whether this process made it.
    """

    made: ClassVar[dict[str, int]] = {}
    opened: ClassVar[dict[str, int]] = {}

    def __init__(self, path: str, database: sqlite3.Connection, pending: int = 0, size: int = 0) -> None:
        self.path = path
        self.opened[path] = os.getpid()
        self.ours = self.made.get(path) == os.getpid()
        self.pending = pending
        self.size = size
        self._database = database
        self._settled = 0  # chunks up to this id are settled, even where the disk would not take that
        self._last = 0  # the chunk appended last; adopted files get no more

    @classmethod
    def create(cls, directory: str, *, page: int) -> OutboxFile:
        """Make a new file, readable for its owner only, in a directory that is made if it is missing.

        Raises:
            OSError: If the directory or the file cannot be made.
            sqlite3.Error: If it cannot be written to.
        """
        os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib costs an import
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))  # in the order of the events, as files are adopted
        name = f"{began}.{nanoseconds // 1_000:06d}-{os.getpid()}-{os.urandom(4).hex()}"
        path = os.path.join(directory, name + SUFFIX)  # noqa: PTH118
        touch(path)
        cls.made[path] = os.getpid()
        try:
            with _opening(path) as database:
                database.execute("PRAGMA locking_mode = EXCLUSIVE")
                database.execute(f"PRAGMA page_size = {page}")
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                database.execute("PRAGMA synchronous = OFF")
                database.execute("BEGIN IMMEDIATE")
                database.execute(_CREATE)
                database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                database.execute("COMMIT")
                _own(database)
        except BaseException:
            delete(path)
            raise
        return cls(path, database)

    @classmethod
    def adopt(cls, path: str) -> OutboxFile | None:
        """Open the file of a process that has ended; return None if its owner lives.

        Raises:
            NewerSchemaError: If a later version of the library has written it.
            OSError: If it is gone.
            sqlite3.Error: If it cannot be read.
        """
        os.stat(path)  # noqa: PTH116 - SQLite would create it
        try:
            with _opening(path) as database:
                _own(database)
                pending, size = contents(database)
                os.stat(path)  # noqa: PTH116 - its owner may have deleted it after we opened it
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return None
        return cls(path, database, pending, size)

    def append(self, items: list[Item]) -> list[tuple[int, int]]:
        """Commit items; return for each chunk made of them its id and how many items it has."""
        values: list[object] = []
        chunks: list[tuple[int, int]] = []
        size = 0
        for run in _runs(items):
            body = SEPARATOR.join([item[1] for item in run])
            size += len(body) - len(SEPARATOR) * (len(run) - 1)
            chunks.append((self._last + len(chunks) + 1, len(run)))
            values += (chunks[-1][0], run[0][0], run[0][2], len(run), body)
        # One statement, however many chunks: each costs a release of the GIL, which a busy caller then keeps for 5 ms.
        self._database.execute(_INSERT + _MORE_ROWS * (len(chunks) - 1), values)
        self._last += len(chunks)
        self.pending += len(items)
        self.size += size
        return chunks

    def recover(self) -> None:
        """Count again what is in the file, after an exception in the middle of `append`."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        query = f"SELECT {_CONTENTS}, coalesce(max(id), 0) FROM chunks WHERE id > ?"  # noqa: S608 - a constant
        pending, size, last = self._database.execute(query, (self._settled,)).fetchone()
        self.pending, self.size, self._last = int(pending), int(size), max(self._last, last)

    def holds(self, after: int, through: int) -> bool:
        """Whether it has a chunk that begins with one of these records."""
        query = "SELECT 1 FROM chunks WHERE id > ? AND first > ? AND first <= ?"
        return self._database.execute(query, (self._settled, after, through)).fetchone() is not None

    def load(self, after: int) -> list[Chunk]:
        """Return the chunks after one, up to what makes one request.

        Raises:
            sqlite3.Error: If they cannot be read.
        """
        chunks: list[Chunk] = []
        items = size = 0
        query = "SELECT id, path, first, items, body FROM chunks WHERE id > ? ORDER BY id"
        for number, path, first, count, body in self._database.execute(query, (max(after, self._settled),)):
            well_formed = isinstance(body, bytes) and type(count) is type(first) is int and path in PATHS
            if not well_formed or body.count(SEPARATOR) != count - 1:
                message = f"chunk {number} is malformed"
                raise sqlite3.DatabaseError(message)
            items += count
            size += len(body)
            if chunks and (items > MAX_ITEMS or size > MAX_BODY):
                break
            chunks.append(Chunk(number, path, first, body.split(SEPARATOR)))
        return chunks

    def oldest(self) -> int | None:
        """Return the first number of the oldest chunk that is not settled."""
        query = "SELECT first FROM chunks WHERE id > ? ORDER BY id LIMIT 1"
        row = self._database.execute(query, (self._settled,)).fetchone()
        return row[0] if row else None

    def settle(self, events: int, size: int, through: int, rest: list[bytes]) -> None:
        """Remove what has been settled.

        Args:
            events: How many events these are.
            size: Their bytes.
            through: The last chunk of which nothing is left.
            rest: What is left of the chunk after that; empty if it is untouched.
        """
        self.pending -= events
        self.size -= size
        self._settled = max(self._settled, through)
        self._database.execute("DELETE FROM chunks WHERE id <= ?", (self._settled,))
        if rest:
            self._database.execute(
                "UPDATE chunks SET first = first + items - ?, items = ?, body = ? WHERE id = ?",
                (len(rest), len(rest), SEPARATOR.join(rest), through + 1),
            )

    def tend(self) -> None:
        """Give space that is not needed any more back to the disk."""
        if not self.pending and size_of(self.path) + size_of(self.path + "-wal") > SHRINK_BYTES:
            self._database.execute("PRAGMA incremental_vacuum").fetchall()  # each step frees a page
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        (page,) = self._database.execute("PRAGMA page_size").fetchone()
        if free * page > SHRINK_BYTES:  # busy ever since; the next checkpoint cuts the file off
            self._database.execute(f"PRAGMA incremental_vacuum({SHRINK_BYTES // page})").fetchall()

    def close(self) -> None:
        """Give the file up: nothing stays of an empty one; another process can adopt one that is not.

        Raises:
            OSError: If somebody has deleted it, and it cannot be made again.
            sqlite3.Error: Likewise.
        """
        self.opened.pop(self.path, None)
        if self.pending:
            try:
                if not os.path.exists(self.path):  # noqa: PTH110
                    os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
                    touch(self.path)
                    self._database.execute("VACUUM INTO ?", (self.path,))
            finally:
                _close(self._database)
            return
        self._database.execute("PRAGMA synchronous = OFF")  # what is deleted need not wait for the disk
        # Gone before the lock is: nobody can adopt it in between.
        delete(self.path)
        _close(self._database)
        delete(self.path)

    def abandon(self) -> None:
        """Close a file that is no good without writing to it any more."""
        self.opened.pop(self.path, None)
        _close(self._database)


def _close(database: sqlite3.Connection) -> None:
    try:
        database.close()
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(database))


def contents(database: sqlite3.Connection) -> tuple[int, int]:
    """Return how many events a file has, and their bytes.

    Raises:
        NewerSchemaError: If a later version of the library has written it.
        sqlite3.Error: If it cannot be read.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        if database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
            return 0, 0  # its owner died while making it
        message = "it is no outbox"
        raise sqlite3.DatabaseError(message)
    if version > SCHEMA_VERSION:
        raise NewerSchemaError
    query = f"SELECT {_CONTENTS}, total(typeof(items) != 'integer') FROM chunks"  # noqa: S608 - a constant
    events, size, malformed = database.execute(query).fetchone()
    if malformed:
        message = f"{malformed:.0f} chunks are malformed"
        raise sqlite3.DatabaseError(message)
    return int(events), int(size)


@contextmanager
def _opening(path: str) -> Iterator[sqlite3.Connection]:
    """Open a connection that stays open, unless something goes wrong."""
    # Every statement commits by itself. Threads take turns.
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    # Only `_close` closes it, never the collection of the object: not in a forked child that inherits it, either.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
    try:
        yield database
    except BaseException:
        _close(database)
        raise


def _own(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA locking_mode = EXCLUSIVE")  # ownership; and 9.2 us a commit become 5.6
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    (page,) = database.execute("PRAGMA page_size").fetchone()
    database.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_BYTES // page}")
    database.execute("PRAGMA secure_delete = OFF")


def _runs(items: list[Item]) -> list[list[Item]]:
    """Split items where the endpoint changes or a chunk is full."""
    runs: list[list[Item]] = []
    endpoint, size = None, 0
    for item in items:
        path, body, _ = item
        size += len(body) + len(SEPARATOR)
        if path != endpoint or size > MAX_BODY or len(runs[-1]) == MAX_ITEMS:
            runs.append([])
            endpoint, size = path, len(body) + len(SEPARATOR)
        runs[-1].append(item)
    return runs
