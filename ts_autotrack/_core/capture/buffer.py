"""What captures append to and the worker drains: bounded, never blocks, counts what it refuses."""

from __future__ import annotations

from collections import deque
from itertools import islice

from ts_autotrack._core.diagnostics import AtomicCounter

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from ts_autotrack._core.identity.scope import Scope

    # A tuple, because it is built per call: site, scope, nanoseconds since 1970 (or a timestamp given by the
    # application, as text), and the event's own properties or traits.
    # A tuple of values belongs to the site's `captured` names.
    Extras: TypeAlias = dict[str, Any] | tuple[Any, ...] | None
    Record: TypeAlias = tuple["EventTemplate", Scope, int | str, Extras]

BATCH_ITEMS = 1_000
"""Items per request at the most: the vendor's limit. So many waiting records wake the worker before its time."""

DEFAULT_LIMIT, DEFAULT_BYTES = 100_000, 32_000_000
"""What may wait until the settings have been read, which takes the first event some milliseconds."""

OFF, IDLE = 0, -1


class EventTemplate:
    """Where events come from: what all events of one decorated function, or of one event name, have in common.

    Attributes:
        path: The endpoint, such as "/track".
        event_name: The event's name; empty for the other endpoints.
        properties: Properties that every event carries.
        captured: Names of the arguments whose values an event may carry as a tuple: a dict takes four times the memory,
            and making one takes longer.
        where: The place in the application, such as "module.function, line 5", for messages.
        user_id: Overrides the scope's user.
        group_id: Overrides the scope's group.
        encoded: What the worker has encoded of it: the fields before its properties or traits, and these.
    """

    __slots__ = ("captured", "encoded", "event_name", "group_id", "path", "properties", "user_id", "where")

    def __init__(  # noqa: PLR0913 - a value object
        self,
        path: str,
        event_name: str,
        properties: dict[str, object],
        where: str,
        user_id: str | None = None,
        group_id: str | None = None,
        captured: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.event_name = event_name
        self.properties = properties
        self.where = where
        self.user_id = user_id
        self.group_id = group_id
        self.captured = captured
        self.encoded: tuple[bytes, bytes] | None = None

    def named(self, extras: Extras) -> dict[str, Any]:
        """Return an event's own properties by their names."""
        if isinstance(extras, tuple):
            return dict(zip(self.captured, extras, strict=True))
        return extras or {}


class MeteredDict(dict[str, "Any"]):
    """Long properties of one event: they count against the buffer's bytes for as long as they exist.

    So whatever becomes of the event, they are counted once, and no longer than they take up memory.

    Attributes:
        size: Their bytes, roughly.
    """

    __slots__ = ("_buffer", "_era", "size")

    def __init__(self, values: dict[str, Any], size: int, buffer: Buffer) -> None:
        super().__init__(values)
        self.size = size
        self._buffer = buffer
        self._era = buffer.era
        buffer.held += size  # CPython switches no threads in the middle of this
        if buffer.held > buffer.most_bytes and buffer.room > 0:
            buffer.room = IDLE  # the next record has to ask

    def __del__(self) -> None:
        if self._era == self._buffer.era:
            self._buffer.held -= self.size


class Buffer:
    """A deque of records and one number that tells a capture whether it may append.

    A capture appends by itself while `len(records) < room`; everything else is the slow path, `Client.admit`.

    Attributes:
        records: The records that the worker has not taken; never replaced, so a closure may hold its `append`. Nor are
            the counters below, but for `off`.
        room: OFF: take nothing. IDLE: the next record must wake the worker. Else the length at which to ask.
        off_reason: Why nothing is taken, as a reason in `stats().dropped`; None if records are taken.
        at_end: Whether the process is at its end, so that every record has to ask.
        limit: The most records that may wait.
        most_bytes: The most bytes that the long properties of waiting records may have.
        held: Bytes that they have now.
        encoded: Events that wait beside the records, encoded; they count towards the limit.
        era: Counts the resets: a forked child does not count what its parent's threads, frozen in it, hold for ever.
        refused: Counts events refused because the buffer was full.
        skipped: Counts events that came while the library was off, by `off_reason`.
        off: The one of these that the next such event belongs to.
        suppressed: Counts events inside a `suppress` block.
        invalid: Counts events that named nothing to send.
        lost: Counts events that a fault of ours kept from getting here.
    """

    __slots__ = (
        "at_end",
        "encoded",
        "era",
        "held",
        "invalid",
        "limit",
        "lost",
        "most_bytes",
        "off",
        "off_reason",
        "records",
        "refused",
        "room",
        "skipped",
        "suppressed",
    )

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.refused = AtomicCounter()
        self.suppressed = AtomicCounter()
        self.invalid = AtomicCounter()
        self.lost = AtomicCounter()
        self.era = 0
        self.reset()

    def reset(self) -> None:
        """Forget all records and counts: a forked child starts with none of its parent's."""
        self.records.clear()
        self.era += 1
        self.held = 0
        self.encoded = 0
        self.room = IDLE
        self.limit = DEFAULT_LIMIT
        self.most_bytes = DEFAULT_BYTES
        self.off_reason: str | None = None
        self.at_end = False
        self.skipped: dict[str, AtomicCounter] = {}
        self.off = AtomicCounter()
        for tally in (self.refused, self.suppressed, self.invalid, self.lost):
            tally.reset()

    def close(self, reason: str) -> None:
        """Take nothing more; from here on events are counted as dropped for `reason`."""
        self.off = self.skipped.setdefault(reason, AtomicCounter())
        self.off_reason = reason
        self.room = OFF

    def end(self) -> None:
        """Have every record ask from here on, even if nothing is taken any more."""
        self.at_end = True
        self.room = IDLE

    @property
    def full(self) -> bool:
        """Whether no record may be added: by number, or by bytes."""
        return len(self.records) + self.encoded >= self.limit or self.held > self.most_bytes

    @property
    def pressed(self) -> bool:
        """Whether taking records out matters more than giving way to others: an eighth of the limit waits."""
        return 8 * (len(self.records) + self.encoded) > self.limit

    def idle(self) -> None:
        """Have the next record wake the worker."""
        self.room = IDLE if self.off_reason is None else OFF

    def open(self) -> None:
        """Let captures append without asking, until enough wait to wake the worker, or the limit is reached."""
        limit = self.limit - self.encoded
        enough = min(BATCH_ITEMS, (limit + 1) // 2)
        room = enough if len(self.records) < enough else limit or IDLE  # 0 would say that nothing is taken at all
        if self.held > self.most_bytes or self.at_end:
            room = IDLE
        self.room = room if self.off_reason is None else OFF

    def oldest(self, most: int) -> list[Record]:
        """Return up to `most` of the oldest records; `remove` takes them out once they are kept elsewhere."""
        try:
            return list(islice(self.records, most))
        except RuntimeError:  # a finalizer has appended meanwhile
            return [self.records[index] for index in range(min(most, len(self.records), 100))]

    def remove(self, records: list[Record]) -> None:
        """Remove these records from the front, as far as they are still there."""
        for record in records:
            if self.records and self.records[0] is record:
                self.records.popleft()


buffer = Buffer()
"""The buffer of this process; captures append to it."""
