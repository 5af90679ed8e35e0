"""What the worker has counted."""

from __future__ import annotations


class Counts:
    """The worker's account. Only the worker writes, so plain integers do."""

    __slots__ = ("delivered", "dropped", "rejected", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.delivered = 0
        self.rejected = 0
        self.dropped: dict[str, int] = {}

    def drop(self, reason: str, events: int = 1) -> None:
        """Count events that end here."""
        self.dropped[reason] = self.dropped.get(reason, 0) + events
