"""Outage: state of the disk, working or not, and one warning for each outage."""

from __future__ import annotations

from ts_autotrack._core.diagnostics import warn_once

BROKEN = (
    "the outbox {} does not work ({}): events wait in memory, where a crash of the process would lose them, until it "
    "does. Check its permissions and the space on its disk, or set TS_AUTOTRACK_OUTBOX to another directory."
)


class Outage:
    """State of the disk of an outbox.

    Attributes:
        active: True from an error until the next successful commit.
    """

    def __init__(self, directory: str) -> None:
        self.active = False
        self._number = 0
        self._directory = directory

    def begin(self, error: Exception) -> None:
        """Begin an outage, unless one is active."""
        if not self.active:
            self.active = True
            self._number += 1
        warn_once(("outbox", self._number), BROKEN.format(self._directory, error))

    def end(self) -> None:
        """End the outage, if one is active."""
        self.active = False
