"""Adoption: the files of ended processes, recognized by the lock that an ended process no longer holds."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from typing import TYPE_CHECKING

from ts_autotrack._core.contract import MAX_BODY
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.file import OutboxFile
from ts_autotrack._core.outbox.paths import SUFFIX, delete, is_foreign, set_aside
from ts_autotrack._core.outbox.schema import NewerSchemaError, is_damage

if TYPE_CHECKING:
    from _thread import RLock

    from ts_autotrack._core.counters import Counters

SCAN_INTERVAL, SCAN_INTERVAL_PER_FILE = 5.0, 0.5
"""Seconds between two scans of the directory, and further seconds for each file of a running process.

Trying to adopt such a file costs 0.1 ms, and every process of the outbox tries.
"""
UNFINISHED_AGE = 60.0
"""Seconds after which an empty file is deleted: its owner must have died before it had created the table."""
LOCK_BYTE, LOCK_LENGTH = 0x4000_0000, 512
"""Bytes of a file that SQLite locks: https://www.sqlite.org/fileformat.html#the_lock_byte_page."""
SMALL_BYTES = 500_000
"""Bytes of a file, log included, up to which its events are moved into the adopted file."""
RUN_SECONDS = 0.1
"""Seconds for adopting files before the sender goes on."""
MAX_MOVED = 32
"""Files moved before the disk is waited for. Each of them stays open until then."""

CORRUPT = "{} cannot be read ({}); it was set aside as {}, and {}"
FOREIGN = "{} is no file of this outbox and is left alone; give TS_AUTOTRACK_OUTBOX a directory of its own"
NEWER = "{} was written by a later version of ts_autotrack and is left for that version"
NOT_ADOPTED = "the events of an ended process in {} cannot be read ({}); the next scan tries again"


class Adoption:
    """Takes over the files of ended processes, one after the other. Used by one thread at a time.

    Short-lived processes leave many small files. Their events are moved into the adopted file: one request, rather than
    one for each file, takes the events of all.

    Attributes:
        file: The adopted file; None between two files.
        other_bytes: Bytes of all files but this process's own.
        scan_at: Monotonic time of the next scan; 0.0 before the first one.
        messages: Messages for the log; the owner logs them after it has released its lock.
    """

    def __init__(self, directory: str, counters: Counters) -> None:
        self.file: OutboxFile | None = None
        self.other_bytes = 0
        self.scan_at = 0.0
        self.messages: deque[str] = deque()
        self._directory = directory
        self._counters = counters
        self._sizes: dict[str, int] = {}  # bytes by path, as of the last scan
        self._candidates: deque[str] = deque()  # files that may be adopted, oldest first
        self._in_use: set[str] = set()  # files whose owners were alive, as of the last scan
        self._moved: list[OutboxFile] = []  # files whose events are also in the adopted file

    def begin_scan(self, now: float, sizes: dict[str, int], own: OutboxFile | None) -> None:
        """Take the sizes of the files in the directory; each file but the open ones is looked at afterwards.

        Args:
            now: Monotonic time.
            sizes: The result of `paths.measure`.
            own: This process's own file.
        """
        self._sizes = sizes
        self.other_bytes = sum(sizes.values()) - (sizes.get(own.path, 0) if own is not None else 0)
        self.scan_at = now + SCAN_INTERVAL + SCAN_INTERVAL_PER_FILE * len(self._in_use)
        self._in_use.clear()
        opened = {file.path for file in (own, self.file, *self._moved) if file is not None}
        process = os.getpid()
        # An earlier worker's files first.
        order = sorted(sizes, key=lambda path: (OutboxFile.created.get(path) != process, path))
        self._candidates = deque(path for path in order if path not in opened)

    def adopt_earlier(self) -> bool:
        """Adopt the oldest file that an earlier worker of this process has closed; return False if there is none."""
        for path, process in list(OutboxFile.created.items()):
            if self.file is None and process == os.getpid() and os.path.dirname(path) == self._directory:
                self._adopt(path)
        return self.file is not None

    def adopt_next(self) -> bool:
        """Adopt the next file, or move the events of the next file into the adopted one; return False if none is left.

        Raises:
            OSError: The adopted file cannot be written.
            sqlite3.Error: The adopted file cannot be written.
        """
        if not self._candidates or len(self._moved) == MAX_MOVED:
            return False
        if self.file is None:
            self._adopt(self._candidates.popleft())
            return True
        path = self._candidates[0]
        full = self.file.size > MAX_BODY or self.file.created_here or OutboxFile.created.get(path) == os.getpid()
        if full or self._sizes.get(path, 0) > SMALL_BYTES or self.file.deleted:
            return False
        self._move(self._candidates.popleft(), self.file)
        return True

    def abandon_moved(self) -> None:
        """Leave the files whose events were moved; their events are sent twice, with the same ids."""
        while self._moved:
            self._moved.pop().abandon()

    def finish_move(self) -> bool:
        """Delete a file whose events were moved; return False if there is none."""
        if self._moved:
            file = self._moved.pop()
            file.pending = 0
            file.close()
            self._forget(file.path)
        return bool(self._moved)

    def run(self, lock: RLock) -> None:
        """Adopt files, or move their events into the adopted file, for a while.

        The lock is held for one file at a time; `sleep` lets a waiting caller have the lock.

        Raises:
            OSError: See `adopt_next`.
            sqlite3.Error: See `adopt_next`.
        """
        until, more = time.monotonic() + RUN_SECONDS, True
        while more and time.monotonic() < until:
            while more and time.monotonic() < until:
                with lock:
                    more = self.adopt_next()
                time.sleep(0)
            more = bool(self._moved)
            self._sync()
            while self._moved:
                with lock:
                    self._delete_moved()
                time.sleep(0)

    def release(self) -> None:
        """Close the adopted file; adopt the next one of an earlier worker.

        Raises:
            OSError: See `OutboxFile.close`.
            sqlite3.Error: See `OutboxFile.close`.
        """
        file, self.file = self.file, None
        if file is not None:
            self._forget(file.path)
            file.close()
        self.adopt_earlier()  # at once: a flush() in progress waits for the events of this process

    def _adopt(self, path: str) -> None:
        self.file = self._open(path)
        if self.file is not None:
            self._count(self.file.pending, path)

    def _move(self, path: str, target: OutboxFile) -> None:
        """Move the events of a file into the adopted one. The file stays until the disk has its events."""
        source = self._open(path)
        if source is None:
            return
        try:
            items = source.items()
        except sqlite3.Error as error:
            source.abandon()
            _warn_unreadable(path, error)
            return
        try:
            target.append(items)
        except BaseException:
            source.abandon()
            target.recover()
            raise
        self._moved.append(source)
        self._count(len(items), path)

    def _sync(self) -> None:
        """Wait for the disk to have all events that were moved. Needs no lock."""
        if self._moved and self.file is not None:
            try:
                self.file.sync()
            except OSError:
                self.abandon_moved()

    def _delete_moved(self) -> None:
        file = self._moved.pop()
        file.pending = 0
        file.close()
        self._forget(file.path)

    def _open(self, path: str) -> OutboxFile | None:
        with OutboxFile.opening():
            file, in_use = adopt(path)
        if in_use:
            self._in_use.add(path)
        return file

    def _count(self, events: int, path: str) -> None:
        self._counters.adopted += events
        count = "1 event" if events == 1 else f"{events} events"
        self.messages.append(f"sending {count} of an ended process from {path}")

    def _forget(self, path: str) -> None:
        self.other_bytes -= self._sizes.pop(path, 0)


def adopt(path: str) -> tuple[OutboxFile | None, bool]:
    """Take over a file if the owner has ended and the file holds events. Warn if the file cannot be read.

    Returns:
        The file, or None; True if another, running process owns the file.
    """
    file, in_use = None, False
    try:
        opened = OutboxFile.opened(path)
        if opened is not None and opened.pid == os.getpid():
            pass  # this worker's own file, or an earlier worker still sends from the file
        elif is_foreign(path):
            warn_once(("foreign", path), FOREIGN.format(path))
        elif _is_finished(path):
            path = path if opened is None else _copy_inherited(path)
            file = OutboxFile.adopt(path) if path else None
            in_use = file is None
    except FileNotFoundError:
        pass  # the owner, or another process, has delivered all events
    except NewerSchemaError:
        warn_once(("newer", path), NEWER.format(path))
    except (sqlite3.Error, OSError) as error:
        _warn_unreadable(path, error)
    if file is not None and not file.pending:
        file.close()
        file = None
    return file, in_use


def _is_finished(path: str) -> bool:
    """Return False while the owner may still be creating the table."""
    status = os.lstat(path)
    return status.st_size > 0 or time.time() - status.st_mtime >= UNFINISHED_AGE


def _warn_unreadable(path: str, error: Exception) -> None:
    """Set a damaged file aside; any other error may pass."""
    if is_damage(error):
        warn_once(("corrupt", path), CORRUPT.format(path, error, set_aside(path), "nothing in it is sent"))
    else:
        warn_once(("adopt", path, str(error)), NOT_ADOPTED.format(path, error))


def _copy_inherited(path: str) -> str:
    """Replace a file by a copy if the file was open when this process was forked and the owner has ended.

    SQLite in this process has inherited its parent's knowledge of the locks, and would refuse the file forever.

    Returns:
        Path of the copy; an empty string if the owner is alive.
    """
    import fcntl
    from shutil import copyfile

    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_LENGTH, LOCK_BYTE)
        except OSError:
            return ""
        copy = f"{path.removesuffix(SUFFIX)}-{os.getpid()}{SUFFIX}"
        for suffix in ("-wal", ""):  # the database last: scans see no copy without its log
            if os.path.exists(path + suffix):
                copyfile(path + suffix, f"{copy}{suffix}.new")
                os.chmod(f"{copy}{suffix}.new", 0o600)
                os.replace(f"{copy}{suffix}.new", copy + suffix)
        delete(path)  # after a crash before this line the events are sent twice, with the same ids
    return copy
