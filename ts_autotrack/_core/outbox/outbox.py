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

from ts_autotrack._core.contract import MAX_ITEMS
from ts_autotrack._core.delivery.queue import MAX_QUEUED, MAX_QUEUED_BYTES
from ts_autotrack._core.diagnostics import log as say
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.adoption import CORRUPT, adopt
from ts_autotrack._core.outbox.cursor import Head
from ts_autotrack._core.outbox.file import CHUNK_PAGE, EVENT_PAGE, OutboxFile
from ts_autotrack._core.outbox.paths import files, set_aside, used_size
from ts_autotrack._core.outbox.quarantine import Quarantine

if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Iterable

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack.typing import RejectedItem

MOST_PUT = 2 * MAX_ITEMS
"""Items that are committed at once."""
TEND_INTERVAL = 1.0
"""Seconds between two attempts at a disk that does not work."""
LOOK_INTERVAL, LOOK_MORE = 5.0, 0.5
"""Seconds between two looks for files of processes that have ended, and how much more for each other file there is: a
look costs 0.1 ms a file, and all processes look."""


def _size(items: Iterable[Item]) -> int:
    return sum([len(body) for _, body, _ in items])


class Outbox:
    """A backlog in a directory that any number of processes share, each with a file of its own.

    Attributes:
        directory: Where the files are.
    """

    def __init__(self, directory: str, limit: int, *, each: bool, counts: Counters, turn: RLock) -> None:
        self.directory = directory
        self._limit = limit
        self._page = EVENT_PAGE if each else CHUNK_PAGE
        self._counts = counts
        self._turn = turn
        self._quarantine = Quarantine(directory)
        self._own: OutboxFile | None = None
        self._adopted: OutboxFile | None = None
        self._head = Head()
        self._unsaved: deque[Item] = deque()  # what the disk did not take
        self._unsaved_bytes = 0
        self._broken, self._outages = False, 0
        self._news: deque[str] = deque()
        self._others = 0  # bytes of other processes' files
        self._tend_at = self._look_at = 0.0

    @property
    def pending(self) -> int:
        """See `EventQueue`."""
        return self.durable + len(self._unsaved) + self._head.in_memory

    @property
    def durable(self) -> int:
        """See `EventQueue`."""
        return sum([file.pending for file in (self._own, self._adopted) if file is not None])

    @property
    def capacity(self) -> int:
        """See `EventQueue`."""
        if not self._unsaved:
            return MOST_PUT
        return MAX_QUEUED - len(self._unsaved) if self._unsaved_bytes < MAX_QUEUED_BYTES else 0

    def put(self, items: list[Item]) -> None:
        """See `EventQueue`. Committed when this returns, unless the disk does not work."""
        sent_from_memory = self._head.in_memory and not (self._own is not None and self._own.pending)
        if self._unsaved or sent_from_memory:
            self._set_by(items)  # in order; `tend` tries again
        else:
            self._save(items)

    def _set_by(self, items: list[Item]) -> None:
        self._unsaved.extend(items)
        self._unsaved_bytes += _size(items)

    def recover(self, after: int, through: int) -> bool:
        """See `EventQueue`."""
        own, held = self._own, False
        if own is not None:
            try:
                own.recover()
                held = own.holds(after, through)
                self._head.reload(own)
            except sqlite3.Error as error:
                self._complain(error)
        self._unsaved_bytes = _size(self._unsaved)
        return held or bool(self._unsaved and after < self._unsaved[-1][2] <= through)

    def _save(self, items: list[Item]) -> None:
        if not self._commit(items):
            self._set_by(items)

    def _commit(self, items: list[Item]) -> bool:
        """Write items to the own file, as far as the limit allows; return False if the disk does not work."""
        try:
            if self._own is None:
                self._look_around(time.monotonic())  # for what an earlier worker has left, which comes before
                self._own = OutboxFile.create(self.directory, page=self._page)
            size = _size(items)
            if self._others + self._own.size + size > self._limit:
                items = self._fitting(items, self._others + self._own.size)
                size = _size(items)
            if not items:
                return True
            caught_up = self._caught_up()
            chunks = self._own.append(items)
        except (sqlite3.Error, OSError) as error:
            self._trouble(self._own, error)
            return False
        self._broken = False
        if caught_up:
            self._head.keep(self._own, items, size, chunks)
        return True

    def _fitting(self, items: list[Item], used: int) -> list[Item]:
        """Return the items that the limit allows; the others are refused: the newest, as in a full queue."""
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
        own, head = self._own, self._head
        if own is None or (head.items and head.source is not own):
            return False
        if self._adopted is not None and self._adopted.pending:
            return False  # else the head might never be empty, and it never be the other one's turn
        return own.pending == head.of(own)

    def peek(self, most: int) -> list[Item]:
        """See `EventQueue`. All are of one process; what this and an ended one have left goes out by turns."""
        with self._turn:
            if not self._head.items:
                self._fill()
            return list(islice(self._head.items, most))

    def _fill(self) -> None:
        own, adopted = self._own, self._adopted
        own_first = self._head.source is not own
        if adopted is not None and adopted.ours:
            own_first = False  # of an earlier worker: its events were tracked before
        for file in (own, adopted) if own_first else (adopted, own):
            if file is not None and file.pending and self._load(file):
                return
        while self._unsaved and len(self._head.items) < MAX_ITEMS:
            item = self._unsaved.popleft()
            self._unsaved_bytes -= len(item[1])
            self._head.take(item)

    def _load(self, file: OutboxFile) -> bool:
        try:
            return self._head.load(file)
        except sqlite3.Error as error:
            self._trouble(file, error)
            return False

    def _finish_adopted(self, file: OutboxFile) -> None:
        """Be done with a file that is empty, and look for the next one."""
        self._adopted = None
        self._head.forget(file)
        try:
            file.close()
            self._look_around(time.monotonic())
        except (sqlite3.Error, OSError) as error:
            self._complain(error)

    def acknowledge(self, count: int) -> None:
        """See `EventQueue`."""
        with self._turn:
            try:
                self._head.settle(count)
            except sqlite3.Error as error:  # removed with the next ones; until then a crash would send them twice
                self._trouble(self._head.source, error)
            if self._adopted is not None and not self._adopted.pending:
                self._finish_adopted(self._adopted)

    def reject(self, item: RejectedItem) -> None:
        """See `EventQueue`. Kept in the quarantine first."""
        with self._turn:  # it is SQLite, too
            self._quarantine.keep(item)
            self.acknowledge(1)

    def oldest_sequence(self) -> int | None:
        """See `EventQueue`."""
        with self._turn:
            if self._adopted is not None and self._adopted.ours and self._adopted.pending:
                return 0  # of an earlier worker, or deleted under our feet: numbered otherwise
            if self._head.items and (self._head.source is self._own or self._head.source is None):
                return self._head.items[0][2]
            try:
                if self._own is not None and (oldest := self._own.oldest()) is not None:
                    return oldest
            except sqlite3.Error as error:
                self._complain(error)
                return 0
        return self._unsaved[0][2] if self._unsaved else None

    def maintain(self) -> None:
        """See `EventQueue`: write what the disk did not take, and look for files that nobody owns any more."""
        now = time.monotonic()
        if now < self._tend_at:
            return
        self._tend_at = now + TEND_INTERVAL
        with self._turn:
            try:
                for file in (self._own, self._adopted):
                    if file is not None:
                        file.tend()
                if self._unsaved or self._head.in_memory:
                    self._try_again()
                if now >= self._look_at:
                    self._look_around(now)
                if self._adopted is not None and not self._adopted.pending:  # the own file, deleted by somebody
                    self._finish_adopted(self._adopted)
            except (sqlite3.Error, OSError) as error:
                self._complain(error)
            self._quarantine.tend()
        while self._news:  # not in our turn: a log handler of the application may do anything
            say("info", "%s", self._news.popleft())

    def _try_again(self) -> None:
        if self._head.in_memory:
            if self._own is not None and self._own.pending:
                return  # what it has comes before, and cannot be read at the moment
            self._own = self._own or OutboxFile.create(self.directory, page=self._page)
            self._head.save(self._own)
        if self._commit(list(self._unsaved)):
            self._unsaved.clear()  # only now: `pending` is looked at meanwhile
            self._unsaved_bytes = 0
            self._broken = False
            self._news.append(f"the outbox {self.directory} works again")

    def _look_around(self, now: float) -> None:
        if self._own is not None and not os.path.exists(self._own.path):  # noqa: PTH110
            warn_once(("gone", self._own.path), _GONE.format(self._own.path))
            if self._adopted is not None:  # can wait; the other one cannot
                if self._head.source is self._adopted:
                    self._head.clear()
                self._head.forget(self._adopted)
                self._counts.handed_over += self._adopted.pending
                self._adopted.close()
            self._adopted, self._own = self._own, None  # what is in it can still be read and sent
        owned = {file.path for file in (self._own, self._adopted) if file is not None}
        others = [path for path in files(self.directory) if path not in owned]
        others.sort(key=lambda path: OutboxFile.made.get(path) != os.getpid())  # of an earlier worker of this process
        self._look_at = now + LOOK_INTERVAL + LOOK_MORE * len(others)
        self._others = sum(map(used_size, others)) + (self._adopted.size if self._adopted else 0)
        for path in others:
            if self._adopted is not None:
                break
            self._adopted = adopt(path)
            if self._adopted is not None:
                events = self._adopted.pending
                self._counts.adopted += events
                self._news.append(f"{events} events that an ended process left in {path} are sent now")

    def _trouble(self, file: OutboxFile | None, error: Exception) -> None:
        """Set a file aside that cannot be read any more; anything else will pass."""
        healthy = isinstance(error, _HEALTHY) and "decode" not in str(error)
        if file is None or healthy or not isinstance(error, sqlite3.DatabaseError):
            self._complain(error)
            return
        at_hand = self._head.of(file)
        file.abandon()
        self._counts.drop("outbox_corrupt", file.pending - at_hand)
        rest = f"of its {file.pending} events {at_hand} are sent"
        warn_once(("corrupt", file.path), CORRUPT.format(file.path, error, set_aside(file.path), rest))
        self._head.forget(file)
        if file is self._own:
            self._own = None
        else:
            self._adopted = None

    def _complain(self, error: Exception) -> None:
        self._outages += not self._broken
        self._broken = True
        warn_once(("outbox", self._outages), _BROKEN.format(self.directory, error))

    def close(self) -> list[Item]:
        """See `EventQueue`. The files are given up: another process can adopt what is in them."""
        with self._turn:
            left = [*(self._head.items if self._head.source is None else ()), *self._unsaved]
            if left:  # a last attempt
                self._head.clear()
                self._unsaved.clear()
                self._save(left)
            for file in (self._own, self._adopted):
                if file is not None:
                    try:
                        file.close()
                    except (sqlite3.Error, OSError) as error:
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
_GONE = "{} was deleted while it was in use; new events go to a new file, those in it are sent if this process lasts"
_FULL = (
    "the outbox {} is full (TS_AUTOTRACK_OUTBOX_BYTES={}): new events are refused and counted as 'outbox_full' until "
    "the server takes some"
)
