"""What captures append to and the worker drains: bounded, never blocks, counts what it refuses."""

from __future__ import annotations

from collections import deque

from ts_autotrack._faults import Tally

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ts_autotrack._scope import Scope

    # A tuple, because it is built per call: site, scope, nanoseconds since 1970 (or a timestamp given by the
    # application, as text), and the event's own properties or traits.
    Record: TypeAlias = tuple["Site", Scope, int | str, dict[str, Any] | None]

BATCH_ITEMS = 1_000
"""Items per request at the most: the vendor's limit. So many waiting records wake the worker before its time."""

OFF, IDLE = 0, -1


class Site:
    """Where events come from: what all events of one decorated function, or of one event name, have in common.

    Attributes:
        path: The endpoint, such as "/track".
        event_name: The event's name; empty for the other endpoints.
        properties: Properties that every event carries.
        where: The place in the application, as "module:line", for messages.
        user_id: Overrides the scope's user.
        group_id: Overrides the scope's group.
    """

    __slots__ = ("event_name", "group_id", "path", "properties", "user_id", "where")

    def __init__(  # noqa: PLR0913 - a value object
        self,
        path: str,
        event_name: str,
        properties: dict[str, object],
        where: str,
        user_id: str | None = None,
        group_id: str | None = None,
    ) -> None:
        self.path = path
        self.event_name = event_name
        self.properties = properties
        self.where = where
        self.user_id = user_id
        self.group_id = group_id


class Buffer:
    """A deque of records and one number that tells a capture whether it may append.

    A capture appends by itself while `len(records) < room`; everything else is the slow path, `Tracker.admit`.

    Attributes:
        records: The records that the worker has not taken; never replaced, so a closure may hold its `append`.
        room: OFF: take nothing. IDLE: the next record must wake the worker. Else the length at which to ask.
        off_reason: Why nothing is taken, as a reason in `stats().dropped`; None if records are taken.
        limit: The most records that may wait.
        refused: Counts events refused because the buffer was full.
        skipped: Counts events that came while the library was off.
        suppressed: Counts events inside a `suppress` block.
        invalid: Counts events that named nothing to send.
        lost: Counts events that a fault of ours kept from getting here.
    """

    __slots__ = ("invalid", "limit", "lost", "off_reason", "records", "refused", "room", "skipped", "suppressed")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget all records and counts: a forked child starts with none of its parent's."""
        self.records.clear()
        self.room = IDLE
        self.limit = 1
        self.off_reason: str | None = None
        self.refused = Tally()
        self.skipped: dict[str, Tally] = {}
        self.suppressed = Tally()
        self.invalid = Tally()
        self.lost = Tally()

    def close(self, reason: str) -> None:
        """Take nothing more; from here on events are counted as dropped for `reason`."""
        self.off_reason = reason
        self.room = OFF

    def skip(self) -> None:
        """Count an event that came while nothing is taken."""
        self.skipped.setdefault(self.off_reason or "disabled", Tally()).add()

    def idle(self) -> None:
        """Have the next record wake the worker."""
        self.room = IDLE if self.off_reason is None else OFF

    def open(self) -> None:
        """Let captures append without asking, until enough wait to wake the worker, or the limit is reached."""
        enough = min(BATCH_ITEMS, (self.limit + 1) // 2)
        room = enough if len(self.records) < enough else self.limit
        self.room = room if self.off_reason is None else OFF

    def take(self, most: int) -> list[Record]:
        """Remove and return up to `most` of the oldest records."""
        popleft = self.records.popleft
        return [popleft() for _ in range(min(most, len(self.records)))]
