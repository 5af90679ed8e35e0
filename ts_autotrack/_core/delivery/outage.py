"""Outage: a time without delivery, told once when it begins, at most once an hour while it lasts, and when it ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ts_autotrack._core.diagnostics import notice

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

REPEAT = 3_600.0
"""Seconds between two warnings of the same kind in one outage."""
MAX_TOLD = 20
"""Outages told within `REPEAT`: a server that fails every few seconds fills no log."""


class Outage:
    """State of the delivery, working or not.

    Attributes:
        active: True from a failure until the next accepted request.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.active = False
        self._clock = clock
        self._began = 0.0
        self._told: dict[Hashable, float] = {}  # time of the last warning of this outage, by kind
        self._count = 0  # outages told since `_counting_since`
        self._counting_since = -REPEAT

    def fail(self, kind: Hashable, message: str) -> None:
        """Note a failure; leave a warning if its kind is new in this outage, or was told an hour ago."""
        now = self._clock()
        if not self.active:
            self.active, self._began = True, now
            if now - self._counting_since >= REPEAT:
                self._counting_since, self._count = now, 0
            self._count += 1
        if self._count <= MAX_TOLD and now - self._told.get(kind, -REPEAT) >= REPEAT:
            self._told[kind] = now
            more = "; further outages of this hour are not logged" if self._count == MAX_TOLD else ""
            notice("outage", message + more)

    def end(self, waiting: int) -> None:
        """Note an accepted request after a failure."""
        seconds = self._clock() - self._began
        if self._told:
            events = "1 event" if waiting == 1 else f"{waiting} events"
            notice("outage", f"events are delivered again, after {seconds:.1f} s; {events} waited")
        self.active = False
        self._told.clear()
