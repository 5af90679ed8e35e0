"""SQLite connections of event files."""

from __future__ import annotations

import ctypes
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def connect(path: str) -> Iterator[sqlite3.Connection]:
    """Open a connection; close the connection only if the block raises."""
    # Every statement commits by itself. Several threads use the connection, one at a time.
    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    # The reference keeps the garbage collector from closing the connection, above all in a forked child.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(database))
    try:
        yield database
    except BaseException:
        disconnect(database)
        raise


def identity_of(path: str) -> tuple[int, int]:
    """Return device and inode of a file.

    Raises:
        OSError: There is no such file.
    """
    status = os.stat(path)
    return status.st_dev, status.st_ino


def disconnect(database: sqlite3.Connection) -> None:
    """Close a connection."""
    try:
        database.close()
    finally:
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(database))
