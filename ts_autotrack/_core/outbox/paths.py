"""The files of an outbox as the file system sees them: names, sizes, permissions."""

from __future__ import annotations

import os
from contextlib import suppress

SUFFIX = ".events"
_LARGEST_PAGE = 65_536


def files(directory: str) -> list[str]:
    """Return the paths of the files in a directory, oldest first; none if there is no such directory."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.path for entry in entries if entry.name.endswith(SUFFIX))
    except FileNotFoundError:
        return []


def set_aside(path: str) -> str:
    """Rename a file that cannot be read, with its log, so that nobody tries again; return its new path."""
    number = 1
    while os.path.exists(aside := f"{path}.{number}.corrupt"):  # noqa: PTH110 - pathlib costs an import
        number += 1
    for suffix in ("-wal", ""):
        with suppress(OSError):
            os.replace(path + suffix, aside + suffix)  # noqa: PTH105
    return aside


def delete(path: str) -> None:
    """Delete a file and its log, as far as they are there."""
    for suffix in ("-wal", "-journal", ""):
        with suppress(OSError):
            os.unlink(path + suffix)  # noqa: PTH108


def size_of(path: str) -> int:
    """Return the bytes of a file on the disk; 0 if there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError:
        return 0


def used_size(path: str) -> int:
    """Return the bytes of a file, in use by whomever, without its free pages; 0 if it cannot be read.

    As of its last checkpoint: its log, which is bounded, is not counted.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            header = file.read(40)  # https://www.sqlite.org/fileformat.html#the_database_header
    except OSError:
        return 0
    page, free = int.from_bytes(header[16:18], "big"), int.from_bytes(header[36:40], "big")
    return max(0, size_of(path) - free * (_LARGEST_PAGE if page == 1 else page))


def touch(path: str) -> None:
    """Make an empty file that only its owner can read; SQLite gives the log beside it the same owner and permissions.

    Made by root, as by `sudo ts-autotrack outbox retry`, it belongs to the directory's owner, whose processes are to
    adopt it.

    Raises:
        OSError: If it cannot be made.
    """
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            owner = os.stat(os.path.dirname(path))  # noqa: PTH116, PTH120
            os.fchown(file, owner.st_uid, owner.st_gid)
    finally:
        os.close(file)
