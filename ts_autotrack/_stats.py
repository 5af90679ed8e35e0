"""The account that is kept of every event."""

from __future__ import annotations

from typing import NamedTuple


class Stats(NamedTuple):
    """What became of the events of this process.

    Whenever nothing is in motion, `accepted == delivered + pending + rejected + sum(dropped.values())`.

    Attributes:
        accepted: Events that the application handed over, whatever became of them.
        delivered: Events that the server (or the local exporter) accepted.
        pending: Events that wait to be delivered.
        rejected: Events that the server refused for good.
        dropped: Events that were never sent, by reason: "unattributed" (no user was known), "suppressed",
            "queue_full", "too_large", "invalid", "disabled", "no_api_key", "shutdown", "fault".
        replaced: Values, not events, that have no JSON form and were replaced by a marked placeholder.

    Example:
        >>> from ts_autotrack import stats
        >>> sum(stats().dropped.values()) <= stats().accepted
        True
    """

    accepted: int
    delivered: int
    pending: int
    rejected: int
    dropped: dict[str, int]
    replaced: int = 0


class Counts:
    """What the worker has counted. Only the worker writes, so plain integers do."""

    __slots__ = ("delivered", "dropped", "rejected", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.delivered = 0
        self.rejected = 0
        self.dropped: dict[str, int] = {}

    def drop(self, reason: str, events: int = 1) -> None:
        """Count events that end here."""
        self.dropped[reason] = self.dropped.get(reason, 0) + events
