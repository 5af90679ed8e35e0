"""File descriptors that may not take data at the moment: pipes with a slow reader, stopped terminals."""

from __future__ import annotations

import select
import sys
import time

LOG_PATIENCE = 0.1
"""Seconds to wait for the reader of standard error before a message is left out."""


def wait_writable(file: int, deadline: float) -> bool:
    """Wait until a descriptor takes data; return False if `time.monotonic()` reaches the deadline first."""
    if not hasattr(select, "poll"):  # pragma: no cover - Windows cannot wait for a file
        return True
    poll = select.poll()
    poll.register(file, select.POLLOUT)
    return bool(poll.poll(max(0.0, 1_000 * (deadline - time.monotonic()))))


def standard_error_stalls() -> bool:
    """Return True if standard error is full and its reader takes nothing."""
    try:
        file = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # none, closed, or a text in memory
        return False
    return not wait_writable(file, time.monotonic() + LOG_PATIENCE)
