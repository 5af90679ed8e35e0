"""From the buffer to the backlog: records become items, in their order, on whichever thread has the turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.capture.record import Record
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.encoder import Encoder
    from ts_autotrack._core.delivery.queue import EventQueue
    from ts_autotrack.typing import DropReason


class Intake:
    """Has records encoded and kept. One thread at a time: the one that holds the turn.

    Attributes:
        backlog: Where the items go.
    """

    def __init__(self, buffer: Buffer, encoder: Encoder, backlog: EventQueue, counts: Counters) -> None:
        self.backlog = backlog
        self._buffer = buffer
        self._encoder = encoder
        self._counts = counts
        # The records that are being taken, how many had been before, and what had been dropped.
        self._taking: tuple[list[Record], int, dict[DropReason, int]] | None = None

    def run(self) -> None:
        """Take what the buffer holds, as far as the backlog has room; whoever calls this has the turn.

        What comes meanwhile is left: it might be without end, if what we call here is itself tracked.
        """
        if self._taking is not None:
            self._recover(*self._taking)
        left = len(self._buffer.records)
        while left > 0 and (room := self.backlog.capacity) > 0:
            left -= self._take(min(room, left))

    def _take(self, most: int) -> int:
        """Take up to so many records, fewer if they are large; return how many there were to look at."""
        counts = self._counts
        records, taken = self._buffer.peek(most), counts.taken
        self._taking = records, taken, counts.dropped.copy()
        try:
            items, done = self._encoder.encode(records, taken, backed_up=self._buffer.backed_up)
            del records[done:]
            self.backlog.put(items)
        except Exception:
            counts.drop("fault", len(records))
            self._remove(records, taken)
            raise
        self._remove(records, taken)
        return len(records) or most

    def _remove(self, records: list[Record], taken: int) -> None:
        self._counts.taken = taken + len(records)
        self._buffer.remove(records)
        self._taking = None

    def _recover(self, records: list[Record], taken: int, dropped: dict[DropReason, int]) -> None:
        """Find out what a Ctrl-C, or a signal handler that raises, in the middle of `_take` has left undone."""
        if self.backlog.recover(taken, taken + len(records)):
            self._remove(records, taken)
        else:  # they are still in the buffer, and get the same ids again
            self._counts.taken, self._counts.dropped, self._taking = taken, dropped, None
