"""Files of an outbox in the file system: names, sizes, permissions."""

from __future__ import annotations

import os
from contextlib import suppress

SUFFIX = ".events"
"""End of the names of event files."""
LARGEST_PAGE = 65_536
"""Page size in bytes for which SQLite's header says 1."""


def list_files(directory: str) -> list[str]:
    """Return the paths of the event files in a directory, oldest first; an empty list if the directory is missing."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if entry.name.endswith(SUFFIX))
    except FileNotFoundError:
        return []


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


def used_size(path: str) -> int:
    """Return the bytes of a file without its free pages; 0 if the file cannot be read.

    Another process may have the file open. The header is as old as the last checkpoint. The log is not counted; its
    size is bounded.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(40)  # https://www.sqlite.org/fileformat.html#the_database_header
    except OSError:
        return 0
    page, free = int.from_bytes(header[16:18], "big"), int.from_bytes(header[36:40], "big")
    return max(0, file_size(path) - free * (LARGEST_PAGE if page == 1 else page))


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
