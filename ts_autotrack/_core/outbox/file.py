"""Undelivered events of one process in one SQLite file, in write-ahead mode.

A process owns a file while its connection is open: SQLite holds an exclusive lock, and the operating system releases
the lock at any kind of process end. Forked children do not inherit the lock. They must never close such a connection:
SQLite would act as the owner and delete the log that the parent is writing.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS, PATHS
from ts_autotrack._core.outbox import schema
from ts_autotrack._core.outbox.paths import SUFFIX, create_private, delete, file_size
from ts_autotrack._core.outbox.schema import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ts_autotrack._core.delivery.queue import Item

SHRINK_BYTES = 4_000_000
"""Bytes of free space in a file from which on `release_space` returns space to the disk."""


class Chunk(NamedTuple):
    """Items of one endpoint, committed together."""

    id: int
    path: str
    first: int
    items: list[bytes]


class OutboxFile:
    """An open file; its process owns the events. Used by one thread at a time.

    Attributes:
        created: Process id by path, for each file created in this process or an ancestor.
        opened: Process id by path, for each file open in this process or an ancestor.
        path: Path of the database. The log beside the database has the suffix "-wal".
        pending: Unsettled events in the file.
        size: Bytes of the unsettled events.
        created_here: True if this process created the file.
    """

    created: ClassVar[dict[str, int]] = {}
    opened: ClassVar[dict[str, int]] = {}

    def __init__(self, path: str, database: sqlite3.Connection, pending: int = 0, size: int = 0) -> None:
        self.path = path
        self.opened[path] = os.getpid()
        self.created_here = self.created.get(path) == os.getpid()
        self.pending = pending
        self.size = size
        self._database = database
        self._settled = 0  # last chunk id that is settled, also if the disk failed to delete the chunk
        self._last = 0  # last chunk id that was appended; adopted files get no further chunks

    @classmethod
    def create(cls, directory: str, *, page_size: int) -> OutboxFile:
        """Create a file with mode 0600, and the directory if necessary.

        Raises:
            OSError: The directory or the file cannot be created.
            sqlite3.Error: The file cannot be written.
        """
        os.makedirs(directory, mode=0o700, exist_ok=True)
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        # Files are adopted in the order of their names: the time comes first.
        started = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        name = f"{started}.{nanoseconds // 1_000:06d}-{os.getpid()}-{os.urandom(4).hex()}"
        path = os.path.join(directory, name + SUFFIX)
        create_private(path)
        cls.created[path] = os.getpid()
        try:
            with _connect(path) as database:
                schema.create_schema(database, page_size)
        except BaseException:
            delete(path)
            raise
        return cls(path, database)

    @classmethod
    def adopt(cls, path: str) -> OutboxFile | None:
        """Open the file of an ended process; return None if the owner is alive.

        Raises:
            NewerSchemaError: The file was written by a later version of the library.
            OSError: The file is gone.
            sqlite3.Error: The file cannot be read.
        """
        os.stat(path)  # SQLite would create a missing file
        try:
            with _connect(path) as database:
                schema.take_ownership(database)
                pending, size = schema.contents(database)
                os.stat(path)  # the owner may have deleted the file between the two steps above
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return None
        return cls(path, database, pending, size)

    def append(self, items: list[Item]) -> list[tuple[int, int]]:
        """Commit items as chunks; return the id and the number of items of each chunk."""
        values: list[object] = []
        chunks: list[tuple[int, int]] = []
        size = 0
        for run in _split_into_chunks(items):
            body = SEPARATOR.join([item[1] for item in run])
            size += len(body) - len(SEPARATOR) * (len(run) - 1)
            chunks.append((self._last + len(chunks) + 1, len(run)))
            values += (chunks[-1][0], run[0][0], run[0][2], len(run), body)
        # One statement for all chunks: each statement releases the GIL, which a busy caller then keeps for 5 ms.
        self._database.execute(schema.INSERT + schema.MORE_VALUES * (len(chunks) - 1), values)
        self._last += len(chunks)
        self.pending += len(items)
        self.size += size
        return chunks

    def recover(self) -> None:
        """Count the events again, after an exception in the middle of `append`."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        pending, size, last = self._database.execute(schema.COUNT, (self._settled,)).fetchone()
        self.pending, self.size, self._last = int(pending), int(size), max(self._last, last)

    def contains(self, after: int, through: int) -> bool:
        """Return True if a chunk begins with a record of this range of sequence numbers."""
        parameters = (self._settled, after, through)
        return self._database.execute(schema.CONTAINS, parameters).fetchone() is not None

    def read(self, after: int) -> list[Chunk]:
        """Return the chunks with ids above `after`, as many as fit into one request, but at least one.

        Raises:
            sqlite3.Error: The chunks cannot be read.
        """
        chunks: list[Chunk] = []
        items = size = 0
        for number, path, first, count, body in self._database.execute(schema.READ, (max(after, self._settled),)):
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

    def oldest_sequence(self) -> int | None:
        """Return the sequence number of the first record of the oldest unsettled chunk; None if the file is empty."""
        row = self._database.execute(schema.FIRST_SEQUENCE, (self._settled,)).fetchone()
        return row[0] if row else None

    def remove(self, events: int, size: int, through: int, rest: list[bytes]) -> None:
        """Remove settled events.

        Args:
            events: Number of settled events.
            size: Bytes of the settled events.
            through: Id of the last chunk with no unsettled event.
            rest: Unsettled events of the next chunk; an empty list if all of them are unsettled.
        """
        self.pending -= events
        self.size -= size
        self._settled = max(self._settled, through)
        self._database.execute(schema.DELETE, (self._settled,))
        if rest:
            self._database.execute(schema.SHORTEN, (len(rest), len(rest), SEPARATOR.join(rest), through + 1))

    def remove_some(self, events: int, size: int, changes: list[tuple[int, list[bytes]]]) -> None:
        """Remove settled events behind unsettled ones.

        Args:
            events: Number of settled events.
            size: Bytes of the settled events.
            changes: Ids of the chunks with settled events, each with the chunk's unsettled events.
        """
        self.pending -= events
        self.size -= size
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for number, rest in changes:
                if rest:
                    self._database.execute(schema.REPLACE, (len(rest), SEPARATOR.join(rest), number))
                else:
                    self._database.execute(schema.DELETE_ONE, (number,))
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def release_space(self) -> None:
        """Return free space to the disk."""
        if not self.pending and file_size(self.path) + file_size(self.path + "-wal") > SHRINK_BYTES:
            self._database.execute("PRAGMA incremental_vacuum").fetchall()  # each step frees a page
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        (page,) = self._database.execute("PRAGMA page_size").fetchone()
        if free * page > SHRINK_BYTES:  # a file that is never empty; the next checkpoint truncates the file
            self._database.execute(f"PRAGMA incremental_vacuum({SHRINK_BYTES // page})").fetchall()

    def close(self) -> None:
        """Give up the file: delete an empty file, leave events to the process that adopts them.

        Raises:
            OSError: The file was deleted and cannot be written again.
            sqlite3.Error: The file was deleted and cannot be written again.
        """
        self.opened.pop(self.path, None)
        if self.pending:
            try:
                if not os.path.exists(self.path):
                    os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
                    create_private(self.path)
                    self._database.execute("VACUUM INTO ?", (self.path,))
            finally:
                _close(self._database)
            return
        self._database.execute("PRAGMA synchronous = OFF")  # a deleted file need not wait for the disk
        delete(self.path)  # before the lock is released: no process can adopt the file in between
        _close(self._database)
        delete(self.path)

    def abandon(self) -> None:
        """Close an unusable file without another write."""
        self.opened.pop(self.path, None)
        _close(self._database)


@contextmanager
def _connect(path: str) -> Iterator[sqlite3.Connection]:
    """Open a connection; close the connection only if the block raises."""
    # Every statement commits by itself. Several threads use the connection, one at a time.
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    # The reference keeps the garbage collector from closing the connection, above all in a forked child.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
    try:
        yield database
    except BaseException:
        _close(database)
        raise


def _close(database: sqlite3.Connection) -> None:
    try:
        database.close()
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(database))


def _split_into_chunks(items: list[Item]) -> list[list[Item]]:
    """Split items at each change of the endpoint and wherever a chunk is full."""
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
