"""Adoption: the files of ended processes, recognized by the lock that an ended process no longer holds."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from typing import TYPE_CHECKING

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.file import OutboxFile
from ts_autotrack._core.outbox.paths import SUFFIX, delete, list_files, set_aside, used_size
from ts_autotrack._core.outbox.schema import NewerSchemaError

if TYPE_CHECKING:
    from ts_autotrack._core.counters import Counters

SCAN_INTERVAL, SCAN_INTERVAL_PER_FILE = 5.0, 0.5
"""Seconds between two scans of the directory, and further seconds for each other file.

A scan costs 0.1 ms a file, and every process of the outbox scans.
"""
UNFINISHED_AGE = 60.0
"""Seconds after which an empty file is deleted: its owner must have died before it had created the table."""
LOCK_BYTE, LOCK_LENGTH = 0x4000_0000, 512
"""Bytes of a file that SQLite locks: https://www.sqlite.org/fileformat.html#the_lock_byte_page."""

CORRUPT = "{} cannot be read ({}); it was set aside as {}, and {}"
NEWER = "{} was written by a later version of ts_autotrack and is left for that version"
NOT_ADOPTED = "the events of an ended process in {} cannot be read ({}); the next scan tries again"


class Adoption:
    """Takes over the files of ended processes, one after the other. Used by one thread at a time.

    Attributes:
        file: The adopted file; None between two files.
        other_bytes: Bytes of all files but this process's own, as of the last scan.
        scan_at: Monotonic time of the next scan.
        messages: Messages for the log; the owner logs them after it has released its lock.
    """

    def __init__(self, directory: str, counters: Counters) -> None:
        self.file: OutboxFile | None = None
        self.other_bytes = 0
        self.scan_at = 0.0
        self.messages: deque[str] = deque()
        self._directory = directory
        self._counters = counters

    def scan_directory(self, now: float, own: OutboxFile | None) -> None:
        """Measure the other files, and adopt one if no adopted file is open.

        Args:
            now: Monotonic time.
            own: This process's own file.

        Raises:
            OSError: The directory cannot be read.
        """
        open_paths = {file.path for file in (own, self.file) if file is not None}
        others = [path for path in list_files(self._directory) if path not in open_paths]
        others.sort(key=lambda path: OutboxFile.created.get(path) != os.getpid())  # an earlier worker's files first
        self.scan_at = now + SCAN_INTERVAL + SCAN_INTERVAL_PER_FILE * len(others)
        self.other_bytes = sum(map(used_size, others)) + (self.file.size if self.file else 0)
        for path in others:
            if self.file is not None:
                break
            self.file = adopt(path)
            if self.file is not None:
                count = self.file.pending
                self._counters.adopted += count
                events = "1 event" if count == 1 else f"{count} events"
                self.messages.append(f"sending {events} of an ended process from {path}")

    def release(self) -> None:
        """Close the adopted file.

        Raises:
            OSError: See `OutboxFile.close`.
            sqlite3.Error: See `OutboxFile.close`.
        """
        file, self.file = self.file, None
        if file is not None:
            file.close()


def adopt(path: str) -> OutboxFile | None:
    """Take over a file if the owner has ended and the file holds events. Warn if the file cannot be read."""
    try:
        status = os.stat(path)
        if status.st_size == 0 and time.time() - status.st_mtime < UNFINISHED_AGE:
            return None  # the owner is creating the table
        if OutboxFile.opened.get(path, os.getpid()) != os.getpid() and not (path := _copy_inherited(path)):
            return None
        file = OutboxFile.adopt(path)
    except FileNotFoundError:
        return None  # the owner, or another process, has delivered all events
    except NewerSchemaError:
        warn_once(("newer", path), NEWER.format(path))
    except (sqlite3.OperationalError, OSError) as error:
        warn_once(("adopt", path, str(error)), NOT_ADOPTED.format(path, error))
    except sqlite3.DatabaseError as error:
        warn_once(("corrupt", path), CORRUPT.format(path, error, set_aside(path), "nothing in it is sent"))
    else:
        if file is not None and not file.pending:
            file.close()
            return None
        return file
    return None


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
