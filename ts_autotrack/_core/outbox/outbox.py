"""Outbox: the event queue on disk. Any number of processes share the directory; each process has a file of its own.

Items are committed before they are sent, and removed after they are settled. While the disk does not work, items wait
in memory; they are committed after the disk works again.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

from ts_autotrack._core.contract import MAX_ITEMS
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.diagnostics import log, warn_once
from ts_autotrack._core.outbox.adoption import CORRUPT, Adoption
from ts_autotrack._core.outbox.cursor import Cursor
from ts_autotrack._core.outbox.file import SHRINK_BYTES
from ts_autotrack._core.outbox.outage import Outage
from ts_autotrack._core.outbox.paths import measure, set_aside
from ts_autotrack._core.outbox.quarantine import Quarantine
from ts_autotrack._core.outbox.schema import is_damage
from ts_autotrack._core.outbox.writer import Writer

if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Sequence

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack._core.outbox.file import OutboxFile
    from ts_autotrack.typing import RejectedItem

MAX_PUT = 2 * MAX_ITEMS
"""Items of one commit."""
MAINTAIN_INTERVAL = 1.0
"""Seconds between two rounds of periodic work, such as another attempt at a broken disk."""

DELETED = "{} was deleted while it was in use; its events are written to a new file"


class Outbox:
    """An `EventQueue` in a directory.

    Callers of `put`, `take_over` and `recover` hold `lock`. The other methods take the lock, which is reentrant; the
    properties need no lock.
    """

    def __init__(self, directory: str, max_bytes: int, *, per_event: bool, counters: Counters, lock: RLock) -> None:
        """Create the queue.

        Args:
            directory: Directory of the files, created with the first file.
            max_bytes: Bytes allowed in the directory.
            per_event: True if each event is committed by itself.
            counters: Account of the process.
            lock: Lock on everything that uses SQLite.
        """
        self._directory = directory
        self._counters = counters
        self._lock = lock
        self._writer = Writer(directory, max_bytes, per_event=per_event, counters=counters)
        self._adoption = Adoption(directory, counters)
        self._quarantine = Quarantine(directory)
        self._cursor = Cursor()
        self._overflow = MemoryQueue()  # items that the disk did not take
        self._outage = Outage(directory)
        self._maintain_at = 0.0
        self._waste = SHRINK_BYTES  # bytes of free space or log that a file may keep

    @property
    def files(self) -> list[OutboxFile]:
        """The open files: this process's own file, and the adopted one."""
        return [file for file in (self._writer.file, self._adoption.file) if file is not None]

    @property
    def pending(self) -> int:
        """See `EventQueue`."""
        return self.durable + self._overflow.pending + self._cursor.in_memory

    @property
    def durable(self) -> int:
        """See `EventQueue`."""
        return sum([file.pending for file in self.files])

    @property
    def capacity(self) -> int:
        """See `EventQueue`."""
        return self._overflow.capacity if self._overflow.pending else MAX_PUT

    def put(self, items: list[Item]) -> None:
        """See `EventQueue`. The items are on disk when `put` returns, unless the disk does not work."""
        own = self._writer.file
        own_is_empty = own is None or not own.pending
        if self._overflow.pending or (self._cursor.in_memory and own_is_empty):
            self._overflow.put(items)  # in order, after the items in memory; `maintain` commits all of them
        else:
            self._commit_or_hold(items)

    def take_over(self, items: list[Item]) -> None:
        """See `EventQueue`.

        Calls of the application adopt no file: a signal handler that raises in the middle would leave the file open.
        """
        if self._adoption.adopt_earlier() and self._cursor.source is not None:
            self._cursor.rewind()  # the events of the adopted file are older than the events being sent
        self.put(items)

    def recover(self, after: int, through: int) -> bool:
        """See `EventQueue`."""
        own, committed = self._writer.file, False
        if own is not None:
            try:
                own.recover()
                committed = own.contains(after, through)
                self._cursor.reload(own)
            except sqlite3.Error as error:
                self._outage.begin(error)
        return self._overflow.recover(after, through) or committed

    def peek(self, most: int) -> list[Item]:
        """See `EventQueue`. The items of a call come from one file; the own and the adopted file alternate."""
        with self._lock:
            if not self._cursor.items:
                self._fill_cursor()
            elif most > MAX_ITEMS:
                self._load_more(most - MAX_ITEMS // 2)
            return self._cursor.peek(most)

    def rotate(self, *, in_order: bool) -> bool:
        """See `EventQueue`. Further items of the same file come first, then the items of another file."""
        with self._lock:
            source, adopted = self._cursor.source, self._adoption.file
            if self._load_more(MAX_ITEMS):
                return True
            if self._outage.active or (in_order and adopted is not None and adopted.created_here):
                return False
            others = [file for file in self.files if file is not source and file.pending]
            if source is None or not others:
                return False
            self._cursor.rewind()
            return self._load(others[0])

    def acknowledge(self, count: int, passed: Sequence[int] = ()) -> None:
        """See `EventQueue`."""
        with self._lock:
            try:
                self._cursor.acknowledge(count, passed)
            except sqlite3.Error as error:  # the next removal includes these items; a crash until then resends them
                self._handle_error(error, self._cursor.source)
            self._release_if_settled()

    def reject(self, items: list[RejectedItem], count: int, passed: Sequence[int] = ()) -> None:
        """See `EventQueue`. The quarantine takes the items first."""
        with self._lock:  # the quarantine uses SQLite, too
            self._quarantine.keep(items)
            self.acknowledge(count, passed)

    def oldest_sequence(self) -> int | None:
        """See `EventQueue`."""
        with self._lock:
            own, adopted = self._writer.file, self._adoption.file
            if adopted is not None and adopted.created_here and adopted.pending:
                return 0  # the sequence numbers are an earlier worker's, or precede those of a replaced file
            if self._cursor.items and (self._cursor.source is own or self._cursor.source is None):
                return self._cursor.items[0][2]
            try:
                if own is not None and (oldest := own.oldest_sequence()) is not None:
                    return oldest
            except sqlite3.Error as error:
                self._outage.begin(error)
                return 0
            return self._overflow.oldest_sequence()

    def maintain(self) -> None:
        """See `EventQueue`. Retries a broken disk, returns free space, adopts files of ended processes."""
        now = time.monotonic()
        try:
            if now >= self._maintain_at:
                self._maintain_at = now + MAINTAIN_INTERVAL
                with self._lock:
                    self._maintain_files()
                if now >= self._adoption.scan_at or self._writer.full:
                    sizes = measure(self._directory)  # without the lock: a caller may be waiting for the lock
                    with self._lock:
                        self._begin_scan(now, sizes)
            self._adoption.run(self._lock)
        except (sqlite3.Error, OSError) as error:
            self._outage.begin(error)
        while self._adoption.messages:  # without the lock: a log handler of the application may do anything
            log("info", "%s", self._adoption.messages.popleft())

    def close(self) -> list[Item]:
        """See `EventQueue`. Another process can adopt the files."""
        with self._lock:
            in_memory = self._overflow.close()
            if self._cursor.in_memory:
                in_memory = [*self._cursor.items, *in_memory]
                self._cursor.clear()
            if in_memory:
                self._commit_or_hold(in_memory)
            self._adoption.abandon_moved()
            for file in self.files:
                self._close_file(file)
            return self._overflow.close()

    def _close_file(self, file: OutboxFile) -> None:
        try:
            if file.deleted and file.pending:
                file.rewrite()
            file.close()
        except (sqlite3.Error, OSError) as error:
            self._outage.begin(error)
            if file.deleted:
                self._counters.drop("outbox_corrupt", file.pending)
                file.pending = 0

    def _maintain_files(self) -> None:
        """Write deleted files again, return free space, commit the items in memory."""
        try:
            for file in self.files:
                if file.deleted:
                    warn_once(("gone", file.path), DELETED.format(file.path))
                    file.rewrite()
                else:
                    file.release_space(self._waste)
            if self._overflow.pending or self._cursor.in_memory:
                self._retry()
            self._release_if_settled()
        finally:
            self._quarantine.retry()

    def _begin_scan(self, now: float, sizes: dict[str, int]) -> None:
        self._adoption.begin_scan(now, sizes, self._writer.file)
        self._waste = self._writer.measure(self._adoption.other_bytes)

    def _commit_or_hold(self, items: list[Item]) -> None:
        """Commit items; hold the items in memory if the disk does not work."""
        if not self._commit(items):
            self._overflow.put(items)

    def _commit(self, items: list[Item]) -> bool:
        """Write items to the own file, as far as the directory has space; return False if the disk does not work."""
        try:
            if self._writer.file is None and not self._adoption.scan_at:
                self._begin_scan(time.monotonic(), measure(self._directory))
            items, size = self._writer.limit(items, self._adoption.other_bytes)
            if not items:
                return True
            own = self._writer.open()
            cursor_complete = self._cursor_complete(own)
            chunks = own.append(items)
        except (sqlite3.Error, OSError) as error:
            self._handle_error(error, self._writer.file)
            return False
        self._outage.end()
        if cursor_complete:
            self._cursor.add_committed(own, items, size, chunks)
        return True

    def _cursor_complete(self, own: OutboxFile) -> bool:
        """Return True if the cursor holds all items of the own file."""
        if self._cursor.items and self._cursor.source is not own:
            return False
        adopted = self._adoption.file
        if adopted is not None and adopted.pending:
            return False  # a cursor that is never empty would never take from the adopted file
        return own.pending == self._cursor.count(own)

    def _fill_cursor(self) -> None:
        """Load the next items from a file, or from memory if neither file has any."""
        own, adopted = self._writer.file, self._adoption.file
        own_first = self._cursor.source is not own
        if adopted is not None and adopted.created_here:
            own_first = False  # an earlier worker's events are older
        for file in (own, adopted) if own_first else (adopted, own):
            if file is not None and file.pending and self._load(file):
                return
        items = self._overflow.peek(MAX_ITEMS)
        if items:
            self._cursor.add_from_memory(items)
            self._overflow.acknowledge(len(items))

    def _load_more(self, most: int) -> bool:
        """Load further items beside the present ones, up to `most` items; return False if there are none."""
        source = self._cursor.source
        room = len(self._cursor.items) < most and not self._cursor.full
        return source is not None and room and self._load(source)

    def _load(self, file: OutboxFile) -> bool:
        """Load the next items of a file; return False if the file yields none."""
        try:
            return self._cursor.load(file)
        except sqlite3.Error as error:
            self._handle_error(error, file)
            return False

    def _retry(self) -> None:
        """Commit the items in memory."""
        if self._cursor.in_memory:
            own = self._writer.open()
            if own.pending:
                return  # the file's events are older, and cannot be read at the moment
            self._cursor.commit(own)
        if self._commit(self._overflow.peek(self._overflow.pending)):
            self._overflow.close()  # after the commit: other threads read `pending` meanwhile
            self._outage.end()
            self._adoption.messages.append(f"the outbox {self._directory} works again")

    def _release_if_settled(self) -> None:
        """Close the adopted file if all of its events are settled, and look for the next file."""
        adopted = self._adoption.file
        if adopted is None or adopted.pending:
            return
        self._cursor.forget(adopted)
        try:
            self._adoption.release()
            self._adoption.adopt_next()
        except (sqlite3.Error, OSError) as error:
            self._outage.begin(error)

    def _handle_error(self, error: Exception, file: OutboxFile | None) -> None:
        """Set a damaged file aside; any other error is an outage and may pass."""
        if file is None or not is_damage(error):
            self._outage.begin(error)
            return
        loaded = self._cursor.count(file)
        file.abandon()
        self._counters.drop("outbox_corrupt", file.pending - loaded)
        fate = f"{loaded} of its {file.pending} events will be sent"
        warn_once(("corrupt", file.path), CORRUPT.format(file.path, error, set_aside(file.path), fate))
        self._cursor.forget(file)
        if file is self._writer.file:
            self._writer.file = None
        else:
            self._adoption.file = None
