"""The backlog on disk: what this process has encoded, and what processes that have ended left behind.

Events are committed before they are sent and removed once they are settled. Whatever the disk does, events go on: those
that it does not take wait in memory, and are written as soon as it takes them again.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from ts_autotrack._backlog import MOST_ENCODED, MOST_ENCODED_BYTES
from ts_autotrack._buffer import BATCH_ITEMS
from ts_autotrack._events import MAX_BODY
from ts_autotrack._faults import say, warn_once
from ts_autotrack._outbox_file import (
    CHUNK_PAGE,
    EVENT_PAGE,
    NewerSchemaError,
    OutboxFile,
    files,
    set_aside,
    size_of,
)
from ts_autotrack._quarantine import Quarantine

if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Iterable

    from ts_autotrack._events import Item
    from ts_autotrack._stats import Counts
    from ts_autotrack.typing import RejectedItem

MOST_PUT = 5 * BATCH_ITEMS
"""Items that are committed at once."""
TEND_INTERVAL = 1.0
"""Seconds between two attempts at a disk that does not work."""
LOOK_INTERVAL, LOOK_MORE = 5.0, 0.5
"""Seconds between two looks for files of processes that have ended, and how much more for each other file there is: a
look costs 0.1 ms a file, and all processes look."""
UNFINISHED_AGE = 60.0
"""Seconds after which an empty file, whose owner must have died while making it, is deleted."""


def _size(items: Iterable[Item]) -> int:
    return sum([len(body) for _, body, _ in items])


class Outbox:
    """A backlog in a directory that any number of processes share, each with a file of its own.

    Attributes:
        directory: Where the files are.
    """

    def __init__(self, directory: str, limit: int, *, each: bool, counts: Counts, turn: RLock) -> None:
        self.directory = directory
        self._limit = limit
        self._page = EVENT_PAGE if each else CHUNK_PAGE
        self._counts = counts
        self._turn = turn
        self._quarantine = Quarantine(directory)
        self._own: OutboxFile | None = None
        self._adopted: OutboxFile | None = None
        self._unsaved: deque[Item] = deque()  # what the disk did not take
        self._unsaved_bytes = 0
        self._broken, self._outages = False, 0
        self._news: deque[str] = deque()
        self._others = 0  # bytes of other processes' files
        self._tend_at = self._look_at = 0.0
        # The head: items of one source, the chunks they are of (id, items left), and how far that source has been read.
        self._head: deque[Item] = deque()
        self._chunks: deque[tuple[int, int]] = deque()
        self._source: OutboxFile | None = None
        self._read: dict[OutboxFile, int] = {}

    @property
    def pending(self) -> int:
        """See `Backlog`."""
        return self.durable + len(self._unsaved) + (len(self._head) if self._source is None else 0)

    @property
    def durable(self) -> int:
        """See `Backlog`."""
        return sum([file.pending for file in (self._own, self._adopted) if file is not None])

    @property
    def room(self) -> int:
        """See `Backlog`."""
        if not self._unsaved:
            return MOST_PUT
        return MOST_ENCODED - len(self._unsaved) if self._unsaved_bytes < MOST_ENCODED_BYTES else 0

    def put(self, items: list[Item]) -> None:
        """See `Backlog`. Committed when this returns, unless the disk does not work."""
        if self._unsaved:
            self._set_by(items)  # in order; `tend` tries again
        else:
            self._save(items)

    def _set_by(self, items: list[Item]) -> None:
        self._unsaved.extend(items)
        self._unsaved_bytes += _size(items)

    def recover(self, after: int, through: int) -> bool:
        """See `Backlog`."""
        own, held = self._own, False
        if own is not None:
            try:
                own.recover()
                held = own.holds(after, through)
                if self._source is own:  # what is being sent stays at the front: it is what the file begins with
                    length = len(self._head)
                    self._head.clear()
                    self._chunks.clear()
                    self._read.pop(own, None)
                    while len(self._head) < length and self._read_from(own):
                        pass
            except sqlite3.Error as error:
                self._complain(error)
        self._unsaved_bytes = _size(self._unsaved)
        return held or bool(self._unsaved and after < self._unsaved[-1][2] <= through)

    def _save(self, items: list[Item]) -> None:
        items = self._fitting(items)
        if not items:
            return
        try:
            if self._own is None:
                self._own = OutboxFile.create(self.directory, page=self._page)
            caught_up = self._caught_up()
            chunks = self._own.append(items)
        except (sqlite3.Error, OSError) as error:
            self._set_by(items)
            self._complain(error)
            if self._own is not None:
                self._check(self._own, error)
            return
        self._broken = False
        if caught_up and len(self._head) + len(items) <= MOST_ENCODED and _size(items) <= MAX_BODY:
            # Kept at hand: reading it back and taking it apart costs 0.6 us an event, a fifth of all delivery.
            self._source = self._own
            self._head.extend(items)
            self._chunks.extend(chunks)
            self._read[self._own] = chunks[-1][0]

    def _fitting(self, items: list[Item]) -> list[Item]:
        """Return the items that the limit allows; the others are refused: the newest, as in a full queue."""
        used = self._others + (self._own.size if self._own else 0)
        if used + _size(items) <= self._limit:
            return items
        kept = 0
        for _, body, _ in items:
            used += len(body)
            if used > self._limit:
                break
            kept += 1
        self._counts.drop("outbox_full", len(items) - kept)
        warn_once("outbox_full", _FULL.format(self.directory, self._limit))
        return items[:kept]

    def _caught_up(self) -> bool:
        """Whether the head holds all that is in the own file."""
        own = self._own
        if own is None or (self._head and self._source is not own):
            return False
        if self._adopted is not None and self._adopted.pending:
            return False  # else the head might never be empty, and it never be the other one's turn
        return own.pending == (len(self._head) if self._source is own else 0)

    def head(self, most: int) -> list[Item]:
        """See `Backlog`. All are of one process; what this and an ended one have left goes out by turns."""
        with self._turn:
            if not self._head:
                self._fill()
            return list(islice(self._head, most))

    def _fill(self) -> None:
        first, second = (self._own, self._adopted) if self._source is not self._own else (self._adopted, self._own)
        for file in (first, second):
            if file is not None and file.pending and self._read_from(file):
                return
        self._source = None
        while self._unsaved and len(self._head) < BATCH_ITEMS:
            self._head.append(self._unsaved.popleft())
            self._unsaved_bytes -= len(self._head[-1][1])

    def _read_from(self, file: OutboxFile) -> bool:
        try:
            chunks = file.load(self._read.get(file, 0))
        except sqlite3.Error as error:
            self._complain(error)
            self._check(file, error)
            return False
        self._source = file
        for chunk in chunks:
            self._head.extend((chunk.path, body, chunk.first + n) for n, body in enumerate(chunk.items))
            self._chunks.append((chunk.id, len(chunk.items)))
            self._read[file] = chunk.id
        return bool(chunks)

    def _finish_adopted(self, file: OutboxFile) -> None:
        """Be done with a file that is empty, and look for the next one."""
        self._adopted = None
        self._read.pop(file, None)
        try:
            file.close()
            self._look_around(time.monotonic())
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    def settle(self, count: int) -> None:
        """See `Backlog`."""
        with self._turn:
            self._settle(count)

    def _settle(self, count: int) -> None:
        size = 0
        for _ in range(count):
            size += len(self._head.popleft()[1])
        if self._source is None:
            return
        left, through, rest = count, 0, 0
        while left:
            number, items = self._chunks.popleft()
            if items > left:
                rest = items - left
                self._chunks.appendleft((number, rest))
                break
            left -= items
            through = number
        through = through or self._chunks[0][0] - 1
        try:
            self._source.settle(count, size, through, [self._head[n][1] for n in range(rest)])
        except sqlite3.Error as error:
            self._complain(error)  # removed with the next ones; until then a crash would send them twice
            self._check(self._source, error)
        if self._adopted is not None and not self._adopted.pending:
            self._finish_adopted(self._adopted)

    def reject(self, item: RejectedItem) -> None:
        """See `Backlog`. Kept in the quarantine first."""
        with self._turn:
            try:
                kept = self._quarantine.add(item)
            except (sqlite3.Error, OSError) as error:
                self._complain(error)
            else:
                if not kept:
                    warn_once("quarantine_full", _QUARANTINE_FULL.format(self._quarantine.path))
            self._settle(1)

    def oldest(self) -> int | None:
        """See `Backlog`."""
        if self._adopted is not None and self._adopted.ours and self._adopted.pending:
            return 0  # of an earlier worker, or deleted under our feet: numbered otherwise
        if self._head and (self._source is self._own or self._source is None):
            return self._head[0][2]
        with self._turn:
            try:
                if self._own is not None and (oldest := self._own.oldest()) is not None:
                    return oldest
            except sqlite3.Error as error:
                self._complain(error)
                return 0
        return self._unsaved[0][2] if self._unsaved else None

    def tend(self) -> None:
        """See `Backlog`: write what the disk did not take, and look for files that nobody owns any more."""
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at = now + TEND_INTERVAL
        with self._turn:
            try:
                for file in (self._own, self._adopted):
                    if file is not None:
                        file.tend()
                if self._unsaved or (self._head and self._source is None):
                    self._try_again()
                if now >= self._look_at:
                    self._look_around(now)
                if self._adopted is not None and not self._adopted.pending:  # the own file, deleted by somebody
                    self._finish_adopted(self._adopted)
            except (sqlite3.Error, OSError) as error:
                self._complain(error)
        while self._news:  # not in our turn: a log handler of the application may do anything
            say("info", "%s", self._news.popleft())

    def _try_again(self) -> None:
        at_hand = list(self._head) if self._source is None else []
        if at_hand and self._own is not None and self._own.pending:
            return  # what it has comes before, and cannot be read at the moment
        if at_hand:
            self._own = self._own or OutboxFile.create(self.directory, page=self._page)
            chunks = self._own.append(at_hand)
            self._source, self._chunks = self._own, deque(chunks)
            self._read[self._own] = chunks[-1][0]
        unsaved = list(self._unsaved)
        self._unsaved.clear()
        self._unsaved_bytes = 0
        self._save(unsaved)
        if not self._unsaved:
            self._broken = False
            self._news.append(f"the outbox {self.directory} works again")

    def _look_around(self, now: float) -> None:
        if self._own is not None and not os.path.exists(self._own.path):  # noqa: PTH110
            warn_once(("gone", self._own.path), _GONE.format(self._own.path))
            if self._adopted is not None and self._source is not self._adopted:  # can wait; the other one cannot
                self._counts.adopted -= self._adopted.pending
                self._read.pop(self._adopted, None)
                self._adopted.close()
                self._adopted = None
        if self._own is not None and self._adopted is None and not os.path.exists(self._own.path):  # noqa: PTH110
            self._adopted, self._own = self._own, None  # what is in it can still be read and sent
        owned = {file.path for file in (self._own, self._adopted) if file is not None}
        others = [path for path in files(self.directory) if path not in owned]
        self._look_at = now + LOOK_INTERVAL + LOOK_MORE * len(others)
        self._others = sum(map(size_of, others)) + (self._adopted.size if self._adopted else 0)
        for path in others:
            if self._adopted is not None:
                break
            self._adopt(path)

    def _adopt(self, path: str) -> None:
        try:
            status = os.stat(path)  # noqa: PTH116 - pathlib costs an import
            if status.st_size == 0 and time.time() - status.st_mtime < UNFINISHED_AGE:
                return  # its owner is making it
            file = OutboxFile.adopt(path)
        except FileNotFoundError:
            return  # its owner, or another adopter, was done with it
        except NewerSchemaError:
            warn_once(("newer", path), f"{path} was written by a later version of ts_autotrack, and is left to that")
        except (sqlite3.OperationalError, IsADirectoryError) as error:
            warn_once(("adopt", path, str(error)), _NOT_ADOPTED.format(path, error))
        except sqlite3.DatabaseError as error:
            warn_once(("corrupt", path), _CORRUPT.format(path, error, set_aside(path)))
        else:
            if file is not None and file.pending:
                self._adopted = file
                self._counts.adopted += file.pending
                self._news.append(f"{file.pending} events that an ended process left in {path} are sent now")
            elif file is not None:
                file.close()

    def _check(self, file: OutboxFile, error: Exception) -> None:
        """Set a file aside that cannot be read any more; what is at hand of it is still sent."""
        healthy = isinstance(error, _HEALTHY) and "decode" not in str(error)
        if healthy or not isinstance(error, sqlite3.DatabaseError):
            return
        at_hand = len(self._head) if self._source is file else 0
        file.abandon()
        self._counts.drop("outbox_corrupt", file.pending - at_hand)
        warn_once(("corrupt", file.path), _CORRUPT.format(file.path, error, set_aside(file.path)))
        self._read.pop(file, None)
        if self._source is file:
            self._source = None
            self._chunks.clear()
        if file is self._own:
            self._own = None
        else:
            self._adopted = None

    def _complain(self, error: Exception) -> None:
        self._outages += not self._broken
        self._broken = True
        warn_once(("outbox", self._outages), _BROKEN.format(self.directory, error))

    def close(self) -> list[Item]:
        """See `Backlog`. The files are given up: another process can adopt what is in them."""
        with self._turn:
            left = [*(self._head if self._source is None else ()), *self._unsaved]
            if left:  # a last attempt
                self._head.clear()
                self._unsaved.clear()
                self._save(left)
            for file in (self._own, self._adopted):
                if file is not None:
                    try:
                        file.close()
                    except sqlite3.Error as error:
                        self._complain(error)
            left = list(self._unsaved)
            self._unsaved.clear()
            self._unsaved_bytes = 0
            return left


_HEALTHY = (sqlite3.OperationalError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.IntegrityError)
"""Errors that say nothing about the file's content: it is locked, read-only, full or away."""
_BROKEN = (
    "the outbox {} does not work ({}): events wait in memory, where a crash of the process would lose them, until it "
    "does. Check its permissions and the space on its disk, or set TS_AUTOTRACK_OUTBOX to another directory."
)
_NOT_ADOPTED = "what an ended process has left in {} cannot be opened ({}); it is tried again"
_CORRUPT = "{} cannot be read ({}); it was set aside as {}, and nothing in it is sent"
_GONE = "{} was deleted while it was in use; new events go to a new file, those in it are sent if this process lasts"
_FULL = (
    "the outbox {} is full (TS_AUTOTRACK_OUTBOX_BYTES={}): new events are refused and counted as 'outbox_full' until "
    "the server takes some"
)
_QUARANTINE_FULL = (
    "{} is full: items that the server refuses are only counted and logged. Look at them with `ts-autotrack outbox "
    "list`, then `ts-autotrack outbox purge`."
)
