"""Inspection of an outbox from outside, for `ts-autotrack outbox`; works while other processes use the files."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, NamedTuple

from ts_autotrack._core.identity.user_context import suppress
from ts_autotrack._core.outbox.chunks import SEPARATOR
from ts_autotrack._core.outbox.file import OutboxFile
from ts_autotrack._core.outbox.paths import file_size, is_foreign, list_files
from ts_autotrack._core.outbox.quarantine import Quarantine
from ts_autotrack._core.outbox.schema import EVENT_PAGE, READ_BODIES, NewerSchemaError, check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ts_autotrack.typing import RejectedItem

LOCK_TIMEOUT = 5.0
"""Seconds to wait for a process that is using the quarantine."""
MAX_COPIES = 10
"""Attempts to copy a file while a busy process is writing to the file."""

NO_OUTBOX = "it is no file of an outbox"
OPEN_HERE = "this process itself has it open: run the command in another process"


class InspectionError(Exception):
    """The request cannot be fulfilled; the text gives the reason."""


class FileStatus(NamedTuple):
    """State of one process's file.

    Attributes:
        path: Path of the file.
        in_use: True if a process has the file open.
        pending: Unsettled events.
        problem: Reason why the file cannot be read; an empty string for a readable file.
    """

    path: str
    in_use: bool
    pending: int
    problem: str = ""

    @property
    def size(self) -> int:
        """Bytes of the file and its log."""
        return file_size(self.path) + file_size(f"{self.path}-wal")


def file_statuses(directory: str) -> list[FileStatus]:
    """Return the state of each event file, oldest first."""
    return [status for path in list_files(directory) if (status := _file_status(path))]


def corrupt_files(directory: str) -> list[str]:
    """Return the names of the files that were set aside."""
    return sorted(path.name for path in Path(directory).glob("*.corrupt"))


def pending_items(path: str) -> Iterator[tuple[str, str]]:
    """Yield endpoint and JSON of each unsettled event in a file; nothing if the file is gone.

    Raises:
        InspectionError: The file cannot be read.
    """
    try:
        with _open_copy(path) as database:
            if check(database)[0]:
                for endpoint, body in database.execute(READ_BODIES):
                    for item in body.decode().split(SEPARATOR.decode()):
                        yield endpoint, item
    except FileNotFoundError:  # the owner has delivered all events meanwhile
        return
    except NewerSchemaError:
        message = f"{path} was written by a later version; it is left out"
        raise InspectionError(message) from None
    except (OSError, ValueError, AttributeError, sqlite3.Error) as error:
        message = f"{path} cannot be read ({error}); it is left out"
        raise InspectionError(message) from error


def rejected_items(directory: str, ids: Sequence[int] = ()) -> list[tuple[int, RejectedItem]]:
    """Return id and item of the rejected items with the given ids, or of all rejected items.

    Raises:
        InspectionError: There is no item with one of the ids.
        OSError: The quarantine cannot be read.
        sqlite3.Error: The quarantine cannot be read.
    """
    found = list(_quarantine(directory).items(ids))
    if unknown := set(ids) - {number for number, _ in found}:
        message = f"there is no refused item {min(unknown)}"
        raise InspectionError(message)
    return found


def retry(directory: str, ids: Sequence[int] = ()) -> int:
    """Move rejected items into a new file, for adoption by any process of the outbox; return the number of items.

    Raises:
        InspectionError: See `rejected_items`.
        OSError: The file cannot be created.
        sqlite3.Error: The file or the quarantine cannot be written.
    """
    items = rejected_items(directory, ids)
    if items:
        file = OutboxFile.create(directory, page_size=EVENT_PAGE)
        try:
            file.append([(rejected.path, rejected.item.encode(), 0) for _, rejected in items])
            _quarantine(directory).remove([number for number, _ in items])
        finally:
            file.close()  # from here on a process can adopt the file
    return len(items)


def purge(directory: str, ids: Sequence[int] = ()) -> int:
    """Delete rejected items; return the number of items.

    Raises:
        InspectionError: See `rejected_items`.
        OSError: The quarantine cannot be written.
        sqlite3.Error: The quarantine cannot be written.
    """
    items = rejected_items(directory, ids)
    if items:
        _quarantine(directory).remove([number for number, _ in items])
    return len(items)


def _quarantine(directory: str) -> Quarantine:
    return Quarantine(directory, LOCK_TIMEOUT)


def _file_status(path: str) -> FileStatus | None:
    """Return the state of a file; None if the file is gone."""
    try:
        own = OutboxFile.opened(path)
        if own is not None and own.pid == os.getpid():
            return FileStatus(path, in_use=True, pending=own.pending)
        with _open_copy(path) as database:
            return FileStatus(path, _in_use(path), check(database)[0])
    except FileNotFoundError:  # the owner has delivered all events meanwhile
        return None
    except NewerSchemaError:
        return FileStatus(path, _in_use(path), 0, "of a later version")
    except (OSError, sqlite3.Error) as error:
        return FileStatus(path, in_use=False, pending=0, problem=str(error)) if os.path.exists(path) else None


def _in_use(path: str) -> bool:
    with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", timeout=0, uri=True)) as database:
        try:
            database.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            return "locked" in str(error)
    return False


@contextmanager
def _open_copy(path: str) -> Iterator[sqlite3.Connection]:
    """Open a copy of a file, since a process may own the file itself.

    The lock of a file that this process owns would fall with the end of the copying, so such a file is refused.

    The log is copied first: pages that a checkpoint moves meanwhile are then in both copies. A log that was restarted
    meanwhile would put old pages over newer ones, so both are copied again.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # An event tracked by a finalizer could wait for a thread that waits for this lock.
        with suppress(), OutboxFile.opening():
            own = OutboxFile.opened(path)
            if own is not None and own.pid == os.getpid():
                raise OSError(OPEN_HERE)
            if is_foreign(path):
                raise sqlite3.DatabaseError(NO_OUTBOX)
            copy = _copy(path, Path(scratch))
        with closing(sqlite3.connect(copy)) as database:
            yield database


def _copy(path: str, scratch: Path) -> Path:
    """Copy a file and its log; return the path of the copy."""
    copy, log = scratch, Path(f"{path}-wal")
    for attempt in range(MAX_COPIES):
        copy, before = scratch / str(attempt), _log_state(log)
        if before is not None:
            copyfile(log, f"{copy}-wal")
        copyfile(path, copy)
        if _log_state(log) == before:
            break
    return copy


def _log_state(log: Path) -> tuple[bytes, int] | None:
    """Return header and length of a log; each restart of the log changes a salt in the header."""
    try:
        with log.open("rb") as file:
            return file.read(32), log.stat().st_size
    except FileNotFoundError:
        return None
