"""One inspector at a time uses a database file: counters and the latest timestamps of users are kept in its memory."""

from __future__ import annotations

import os
import sqlite3

SUFFIX = "-inspector"
"""Suffix of the lock file beside the database: any SQLite tool may use the database itself."""
OWNED = "another inspector keeps its events in this file; end that inspector, or give this one a file of its own"


def own(path: str) -> sqlite3.Connection:
    """Lock a database file until the returned connection is closed, which the end of the process does, too.

    The lock file stays: a lock on a deleted file would keep nobody out.

    Raises:
        sqlite3.OperationalError: If another inspector has locked the file, or the lock file cannot be made.
    """
    lock = sqlite3.connect(os.path.realpath(path) + SUFFIX, timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        raise sqlite3.OperationalError(OWNED if "locked" in str(error) else str(error)) from None
    return lock
