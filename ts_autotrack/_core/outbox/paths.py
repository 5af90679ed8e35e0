"""Files of an outbox in the file system: names, sizes, permissions."""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress

SUFFIX = ".events"
"""End of the names of event files."""
HEADER_BYTES = 100
"""Bytes of SQLite's header: https://www.sqlite.org/fileformat.html#the_database_header."""
MAGIC = b"SQLite format 3\0"
"""First bytes of every SQLite database."""
APPLICATION_ID = int.from_bytes(b"tsat", "big")
"""SQLite's `application_id` of an event file, at byte 68 of the header."""

_NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}-\d+-[0-9a-f]{8}(?:-\d+)*\.events)(-wal|-journal)?")
"""Name of an event file or of a log beside an event file; see `new_name`."""


def new_name() -> str:
    """Return a name for a new event file. Files are adopted in the order of their names: the time comes first."""
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    started = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    return f"{started}.{nanoseconds // 1_000:06d}-{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"


def list_files(directory: str) -> list[str]:
    """Return the paths of the event files in a directory, oldest first; an empty list if the directory is missing.

    Directories, named pipes and symbolic links are left out.
    """
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if _is_event_file(entry))
    except FileNotFoundError:
        return []


def measure(directory: str) -> dict[str, int]:
    """Return the bytes of each event file with its logs, by path; 0 for a file whose name is not an outbox's own.

    No file is opened. An entry of the directory takes 4 us.

    Raises:
        OSError: The directory cannot be read.
    """
    sizes: dict[str, int] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None:
                    if _is_event_file(entry):
                        sizes[entry.path] = 0
                elif entry.is_file(follow_symlinks=False):
                    path = entry.path.removesuffix(match[2] or "")
                    with suppress(FileNotFoundError):
                        sizes[path] = sizes.get(path, 0) + entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return {}
    return sizes


def is_foreign(path: str) -> bool:
    """Return True if a file, by header and name, was not made by an outbox.

    SQLite would block on a named pipe, and would change a foreign database by opening it. The caller makes sure that
    this process has no SQLite connection to the file: see `OutboxFile.opened`.

    Raises:
        OSError: The file cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return True
        header = os.read(file, HEADER_BYTES)
    finally:
        os.close(file)
    application = int.from_bytes(header[68:72], "big") if header.startswith(MAGIC) else 0
    # An own file may be damaged, and its owner may have died before it had written the application id.
    return application != APPLICATION_ID and (application != 0 or _NAME.fullmatch(os.path.basename(path)) is None)


def set_aside(path: str) -> str:
    """Rename an unreadable file and its log, so that no process opens them again; return the new path."""
    number = 1
    while os.path.exists(aside := f"{path}.{number}.corrupt"):
        number += 1
    for suffix in ("-wal", ""):
        with suppress(OSError):
            os.replace(path + suffix, aside + suffix)
    return aside


def delete(path: str) -> None:
    """Delete a file and its logs, as far as they exist."""
    for suffix in ("-wal", "-journal", ""):
        with suppress(OSError):
            os.unlink(path + suffix)


def file_size(path: str) -> int:
    """Return the bytes of a file; 0 if the file is missing."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def create_private(path: str) -> None:
    """Create an empty file with mode 0600. SQLite gives the log beside the file the same owner and permissions.

    A file made by root, as by `sudo ts-autotrack outbox retry`, gets the owner of the directory, whose processes adopt
    the file.

    Raises:
        OSError: The file cannot be created.
    """
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            owner = os.stat(os.path.dirname(path))
            os.fchown(file, owner.st_uid, owner.st_gid)
    finally:
        os.close(file)


def _is_event_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False)
