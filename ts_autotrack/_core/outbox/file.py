"""Undelivered events of one process in one SQLite file, in write-ahead mode.

A process owns a file while its connection is open: SQLite holds an exclusive lock, and the operating system releases
the lock at any kind of process end. Forked children do not inherit the lock. They must never close such a connection:
SQLite would act as the owner and delete the log that the parent is writing.

The lock also falls if the owner itself closes any other descriptor of the file: POSIX locks belong to the process. So
before this process opens an event file without SQLite, it holds `OutboxFile.opening()` and looks at
`OutboxFile.opened()`.
"""

from __future__ import annotations

import os
import sqlite3
from _thread import RLock
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS, PATHS
from ts_autotrack._core.outbox import schema
from ts_autotrack._core.outbox.chunks import SEPARATOR, Chunk, split_into_chunks
from ts_autotrack._core.outbox.connection import connect, disconnect, identity_of
from ts_autotrack._core.outbox.paths import create_private, delete, file_size, new_name
from ts_autotrack._core.outbox.schema import insert

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ts_autotrack._core.delivery.queue import Item

SHRINK_BYTES = 4_000_000
"""Bytes of free space or log that a file may keep."""
EMPTY_PAGES = 3
"""Pages of a file without events."""


class OutboxFile:
    """An open file; its process owns the events. Used by one thread at a time.

    Attributes:
        created: Process id by path, for each file created in this process or an ancestor.
        path: Path of the database. The log beside the database has the suffix "-wal".
        pid: Id of the process that opened the file.
        pending: Unsettled events in the file.
        size: Bytes of the unsettled events.
        created_here: True if this process created the file.
    """

    created: ClassVar[dict[str, int]] = {}
    _opened: ClassVar[dict[tuple[int, int], OutboxFile]] = {}  # by device and inode; in a child also the parent's
    _locks: ClassVar[dict[int, RLock]] = {}  # by process: a child does not inherit a lock held by its parent

    def __init__(self, path: str, database: sqlite3.Connection) -> None:
        self.path = path
        self.pid = os.getpid()
        self.created_here = self.created.get(path) == self.pid
        self.pending = 0
        self.size = 0
        self._database = database
        self._identity = identity_of(path)
        self._settled = 0  # last chunk id that is settled, also if the disk failed to delete the chunk
        self._last = 0  # last chunk id that was appended
        self._opened[self._identity] = self

    @classmethod
    def opening(cls) -> RLock:
        """Return the lock of this process to hold while an event file is opened, with or without SQLite."""
        return cls._locks.setdefault(os.getpid(), RLock())

    @classmethod
    def opened(cls, path: str) -> OutboxFile | None:
        """Return the file if this process or an ancestor has it open.

        Raises:
            OSError: The file is gone.
        """
        return cls._opened.get(identity_of(path))

    @classmethod
    def create(cls, directory: str, *, page_size: int) -> OutboxFile:
        """Create a file with mode 0600, and the directory if necessary.

        Raises:
            OSError: The directory or the file cannot be created.
            sqlite3.Error: The file cannot be written.
        """
        with cls.opening(), _new_database(directory, page_size) as (path, database):
            cls.created[path] = os.getpid()
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
            with cls.opening(), connect(path) as database:
                schema.take_ownership(database)
                contents = schema.check(database)
                file = cls(path, database)  # raises if the owner has just deleted the file
                file.pending, file.size, file._last = contents
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return None
        return file

    @property
    def deleted(self) -> bool:
        """True if somebody has deleted or replaced the file."""
        try:
            return identity_of(self.path) != self._identity
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    @property
    def used(self) -> int:
        """Bytes on the disk, beyond those of an empty file, log included."""
        page: int = self._database.execute("PRAGMA page_size").fetchone()[0]
        return max(self.size, file_size(self.path) - EMPTY_PAGES * page) + file_size(self.path + "-wal")

    def append(self, items: list[Item]) -> list[tuple[int, int]]:
        """Commit items as chunks; return the id and the number of items of each chunk."""
        values: list[object] = []
        chunks: list[tuple[int, int]] = []
        size = 0
        for run in split_into_chunks(items):
            body = SEPARATOR.join([item[1] for item in run])
            size += len(body) - len(SEPARATOR) * (len(run) - 1)
            chunks.append((self._last + len(chunks) + 1, len(run)))
            values += (chunks[-1][0], run[0][0], run[0][2], len(run), body)
        insert(self._database, values)
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

    def items(self) -> list[Item]:
        """Return all unsettled items; their sequence numbers are 0.

        Raises:
            sqlite3.Error: The items cannot be read.
        """
        items: list[Item] = []
        after = 0
        while chunks := self.read(after):
            items += [(chunk.path, body, 0) for chunk in chunks for body in chunk.items]
            after = chunks[-1].id
        return items

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

    def release_space(self, spare: int = SHRINK_BYTES) -> None:
        """Return free pages and the log to the disk if they exceed `spare` bytes."""
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        (page,) = self._database.execute("PRAGMA page_size").fetchone()
        if free * page + file_size(self.path + "-wal") <= spare:
            return
        pages = f"({SHRINK_BYTES // page})" if self.pending else ""  # a file that is never empty shrinks by steps
        # Each step of this statement frees a page; `execute` makes a single step.
        self._database.executescript(f"PRAGMA incremental_vacuum{pages}")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def sync(self) -> None:
        """Wait until the disk has all events of the log. Needs no lock: no connection is used.

        Raises:
            OSError: The log is gone, or the disk does not work.
        """
        log = os.open(self.path + "-wal", os.O_RDWR)
        try:
            os.fsync(log)
        finally:
            os.close(log)

    def rewrite(self) -> None:
        """Write the unsettled events to a new file, after this one was deleted.

        Raises:
            OSError: The new file cannot be created.
            sqlite3.Error: The new file cannot be written.
        """
        (page,) = self._database.execute("PRAGMA page_size").fetchone()
        with self.opening(), _new_database(os.path.dirname(self.path), page) as (path, database):
            database.execute("BEGIN")
            database.executemany(schema.INSERT, self._database.execute(schema.READ, (self._settled,)))
            database.execute("COMMIT")
            identity = identity_of(path)
            self._opened[identity] = self
        old, old_identity = self._database, self._identity
        self.created.pop(self.path, None)
        self.created[path] = self.pid
        self.path, self._database, self._identity = path, database, identity
        self._end(old, old_identity)

    def close(self) -> None:
        """Give up the file: delete an empty file, leave events to the process that adopts them.

        Raises:
            sqlite3.Error: The disk does not work.
        """
        if self.pending:
            self.abandon()
            return
        self._database.execute("PRAGMA synchronous = OFF")  # a deleted file need not wait for the disk
        replaced = self.deleted and os.path.exists(self.path)
        if not replaced:
            delete(self.path)  # before the lock is released: no process can adopt the file in between
        self.abandon()
        if not replaced:
            delete(self.path)
        self.created.pop(self.path, None)

    def abandon(self) -> None:
        """Close the file as it is."""
        self._end(self._database, self._identity)

    def _end(self, database: sqlite3.Connection, identity: tuple[int, int]) -> None:
        """Close a connection. The file counts as open until then: the lock matters to the end."""
        with self.opening():
            try:
                disconnect(database)
            finally:
                self._opened.pop(identity, None)


@contextmanager
def _new_database(directory: str, page_size: int) -> Iterator[tuple[str, sqlite3.Connection]]:
    """Create a file with an empty table; delete the file if the block raises."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, new_name())
    create_private(path)
    try:
        with connect(path) as database:
            schema.create_schema(database, page_size)
            yield path, database
    except BaseException:
        delete(path)
        raise
