"""Memory of a server that did not answer, across the short processes that share an outbox.

A command line leaves its events in the outbox, and waits at its end for a request that is under way: given up, its
events might be sent twice. A dead server would delay each command. So the command that has waited in vain leaves a mark
in the directory, and for a minute no other command waits.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

NAME = "unanswered"
"""Name of the mark: an empty file."""
VALID = 60.0
"""Seconds for which the mark holds."""


def is_silent(directory: str) -> bool:
    """Return True if a process has waited in vain within the last minute."""
    try:
        return 0 <= time.time() - os.stat(os.path.join(directory, NAME)).st_mtime < VALID
    except OSError:
        return False


def note(directory: str, *, answered: bool) -> None:
    """Set the mark after a wait in vain; remove the mark after an answer."""
    path = os.path.join(directory, NAME)
    with suppress(OSError):
        if answered:
            os.unlink(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            os.utime(path)
