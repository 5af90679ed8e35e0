"""What the worker has counted."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from ts_autotrack.typing import RejectedItem

MOST_REJECTED, MOST_REJECTED_BYTES = 1_000, 8_000_000
"""What is kept in memory of the rejected items; the oldest make room."""


class Counts:
    """The account of what left the buffer. Each number is written by one thread at a time, so plain integers do."""

    __slots__ = ("_rejects_size", "adopted", "delivered", "dropped", "handed_over", "rejected", "rejects", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.adopted = 0
        self.handed_over = 0
        self.delivered = 0
        self.rejected = 0
        self.rejects: deque[RejectedItem] = deque()
        self._rejects_size = 0
        self.dropped: dict[str, int] = {}

    def drop(self, reason: str, events: int = 1) -> None:
        """Count events that end here."""
        self.dropped[reason] = self.dropped.get(reason, 0) + events

    def reject(self, item: RejectedItem) -> None:
        """Count an item that the server has refused for good, and keep it for a while."""
        self.rejected += 1
        self.rejects.append(item)
        self._rejects_size += len(item.item)
        while len(self.rejects) > MOST_REJECTED or self._rejects_size > max(MOST_REJECTED_BYTES, len(item.item)):
            self._rejects_size -= len(self.rejects.popleft().item)
