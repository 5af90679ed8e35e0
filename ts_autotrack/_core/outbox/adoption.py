"""What processes that have ended left behind in an outbox: found by the lock that they no longer hold."""

from __future__ import annotations

import os
import sqlite3
import time

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.file import NewerSchemaError, OutboxFile
from ts_autotrack._core.outbox.paths import SUFFIX, delete, set_aside

UNFINISHED_AGE = 60.0
"""Seconds after which an empty file, whose owner must have died while making it, is deleted."""
_LOCKED_BY_SQLITE, _LENGTH = 0x4000_0000, 512
"""The bytes of a file that SQLite locks: https://www.sqlite.org/fileformat.html#the_lock_byte_page."""


def adopt(path: str) -> OutboxFile | None:
    """Take over a file if its owner has ended and there are events in it; say so if that cannot be done."""
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib costs an import
        if status.st_size == 0 and time.time() - status.st_mtime < UNFINISHED_AGE:
            return None  # its owner is making it
        if OutboxFile.opened.get(path, os.getpid()) != os.getpid() and not (path := _copy(path)):
            return None
        file = OutboxFile.adopt(path)
    except FileNotFoundError:
        return None  # its owner, or another adopter, was done with it
    except NewerSchemaError:
        warn_once(("newer", path), f"{path} was written by a later version of ts_autotrack, and is left to that")
    except (sqlite3.OperationalError, OSError) as error:
        warn_once(("adopt", path, str(error)), _NOT_ADOPTED.format(path, error))
    except sqlite3.DatabaseError as error:
        warn_once(("corrupt", path), CORRUPT.format(path, error, set_aside(path), "nothing in it is sent"))
    else:
        if file is not None and not file.pending:
            file.close()
            return None
        return file
    return None


def _copy(path: str) -> str:
    """Make a file of our own of one that was open when this process was forked; return its path, "" if its owner lives.

    SQLite in here has inherited what it knew in the parent of the locks on it, and would never let us have it.
    """
    import fcntl  # noqa: PLC0415 - lazy: for such children only, and not on every system
    from shutil import copyfile  # noqa: PLC0415 - likewise

    with open(path, "r+b") as file:  # noqa: PTH123
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LENGTH, _LOCKED_BY_SQLITE)
        except OSError:
            return ""
        copy = f"{path.removesuffix(SUFFIX)}-{os.getpid()}{SUFFIX}"
        for suffix in ("-wal", ""):  # nobody looks at it before the last of them is there
            if os.path.exists(path + suffix):  # noqa: PTH110
                copyfile(path + suffix, f"{copy}{suffix}.new")
                os.chmod(f"{copy}{suffix}.new", 0o600)  # noqa: PTH101
                os.replace(f"{copy}{suffix}.new", copy + suffix)  # noqa: PTH105
        delete(path)  # what crashes before this is sent twice, with the same ids
    return copy


_NOT_ADOPTED = "what an ended process has left in {} cannot be opened ({}); it is tried again"
CORRUPT = "{} cannot be read ({}); it was set aside as {}, and {}"
