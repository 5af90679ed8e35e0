"""Counters of events, and the budget for the memory of waiting events."""

from __future__ import annotations

from collections import deque
from itertools import count
from weakref import ref

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ts_autotrack.typing import DropReason, RejectedItem, Stats

    class Count:
        """The interface of `itertools.count`; type checkers take its constructor for a generic alias."""

        def __next__(self) -> int: ...
        def __iter__(self) -> Iterator[int]: ...
else:
    Count = count

MAX_REJECTED, MAX_REJECTED_BYTES = 1_000, 8_000_000
"""Bounds of the rejected items kept in memory; the oldest make room."""

MAX_PLACES = 200
"""Places of unattributed events that are counted one by one."""
OTHER_PLACES = ("other places", "", "")
"""Stands for all further places."""

DEFAULT_MAX_BYTES = 32_000_000
"""Bytes for long properties until the settings are read."""


class AtomicCounter(Count):
    """Counter that threads, signal handlers and finalizers advance by `next(counter)` without a lock.

    `itertools.count` advances in one uninterruptible step; `n += 1` does not.
    """

    __slots__ = ("_start",)

    def __init__(self) -> None:
        self._start = 0

    def take(self) -> int:
        """Start over at zero, and return the number of advances so far. Advances of other threads are never lost."""
        advances = self.read()
        self._start += advances
        return advances

    def add(self, advances: int) -> None:
        """Count advances that `take` returned."""
        self._start -= advances

    def read(self) -> int:
        """Return the number of advances so far."""
        return int(repr(self)[14:-1]) - self._start  # "AtomicCounter(5)": the only way to read without advancing


class MemoryBudget:
    """Bytes that the long properties of waiting events may hold.

    Attributes:
        limit: Bytes allowed.
        held: Bytes in use.
        generation: Number of resets. A forked child must not count the values that its parent's threads left behind.
        on_exceeded: Called when `held` passes the limit.
    """

    __slots__ = ("generation", "held", "limit", "on_exceeded")

    def __init__(self, limit: int = DEFAULT_MAX_BYTES) -> None:
        self.limit = limit
        self.held = 0
        self.generation = 0
        self.on_exceeded: Callable[[], None] | None = None

    @property
    def exceeded(self) -> bool:
        """True if no further event may wait."""
        return self.held > self.limit

    def reset(self) -> None:
        """Start over with nothing in use."""
        self.generation += 1
        self.held = 0
        self.limit = DEFAULT_MAX_BYTES

    def take(self, size: int) -> None:
        """Add bytes. CPython switches no threads in the middle of the addition."""
        self.held += size
        if self.held > self.limit and self.on_exceeded is not None:
            self.on_exceeded()


memory_budget = MemoryBudget()
"""The budget of this process."""


class Charge:
    """Bytes counted against the memory budget while this object lives.

    The count follows an object's life, so every fate of an event gives the bytes back exactly once.

    Attributes:
        size: Approximate bytes.
    """

    __slots__ = ("__weakref__", "_budget", "_generation", "size")

    def __init__(self, size: int, budget: MemoryBudget = memory_budget) -> None:
        self.size = size
        self._budget = budget
        self._generation = budget.generation
        budget.take(size)

    def __del__(self) -> None:
        if self._generation == self._budget.generation:
            self._budget.held -= self.size


class SharedValue:
    """A long value of several scopes, counted once while an event of any of these scopes waits.

    Attributes:
        size: Approximate bytes.
    """

    __slots__ = ("_charge", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._charge: ref[Charge] | None = None

    def charge(self) -> Charge:
        """Return the charge of all events that wait, made for the first of these events."""
        charge = None if self._charge is None else self._charge()
        if charge is None:
            charge = Charge(self.size)
            self._charge = ref(charge)
        return charge


class MeteredDict(dict[str, "Any"]):
    """Long properties of one event, and its share of other memory: counted from creation to deletion.

    Attributes:
        size: Approximate bytes of the properties.
        charges: Keeps the memory counted: of the properties, and of the values shared with other events.
    """

    __slots__ = ("charges", "size")

    def __init__(
        self,
        values: dict[str, Any],
        size: int,
        shared: tuple[Charge, ...] = (),
        budget: MemoryBudget = memory_budget,
    ) -> None:
        super().__init__(values)
        self.size = size
        self.charges = (Charge(size, budget), *shared) if size else shared


class Counters:
    """Account of the events that left the buffer.

    One thread at a time writes each number, so plain integers suffice.

    Attributes:
        taken: Records taken from the buffer; also the sequence number of the last one.
        moving: True while the records of a batch may be counted both in `taken` and in the buffer.
        adopted: Events taken over from ended processes.
        handed_over: Events left in an outbox for any process.
        delivered: Events accepted by the server.
        rejected: Events refused by the server.
        rejects: The last rejected items.
        dropped: Events dropped after the buffer, by reason.
        unattributed: Events without a user, by place in the application, event name and feature. The interruption of a
            drain by a signal handler that raises may count an event twice.
    """

    __slots__ = (
        "_rejects_size",
        "adopted",
        "delivered",
        "dropped",
        "handed_over",
        "moving",
        "rejected",
        "rejects",
        "taken",
        "unattributed",
    )

    def __init__(self) -> None:
        self.taken = 0
        self.moving = False
        self.adopted = 0
        self.handed_over = 0
        self.delivered = 0
        self.rejected = 0
        self.rejects: deque[RejectedItem] = deque()
        self._rejects_size = 0
        self.dropped: dict[DropReason, int] = {}
        self.unattributed: dict[tuple[str, str, str], int] = {}

    def drop(self, reason: DropReason, events: int = 1) -> None:
        """Count dropped events."""
        self.dropped[reason] = self.dropped.get(reason, 0) + events

    def count_place(self, place: str, event_name: str, feature: str) -> None:
        """Count an unattributed event at its place in the application."""
        key, counts = (place, event_name, feature), self.unattributed
        if key not in counts and len(counts) >= MAX_PLACES:
            key = OTHER_PLACES
        counts[key] = counts.get(key, 0) + 1

    def reject(self, item: RejectedItem) -> None:
        """Count an item that the server refused, and keep it among the last ones."""
        self.rejected += 1
        self.rejects.append(item)
        self._rejects_size += len(item.item)
        while len(self.rejects) > MAX_REJECTED or self._rejects_size > max(MAX_REJECTED_BYTES, len(item.item)):
            self._rejects_size -= len(self.rejects.popleft().item)

    def stats(self, drops: dict[DropReason, int], waiting: int, pending: int, replaced: int) -> Stats:
        """Return the whole account.

        Args:
            drops: Events dropped before the buffer, by reason.
            waiting: Records in the buffer.
            pending: Unsettled events, the waiting ones included.
            replaced: Values replaced by a placeholder.
        """
        from ts_autotrack.typing import Stats

        accepted = self.taken + self.adopted + waiting + sum(drops.values())
        dropped = dict(drops)
        for reason, events in self.dropped.copy().items():
            dropped[reason] = dropped.get(reason, 0) + events
        return Stats(
            accepted=accepted,
            delivered=self.delivered,
            pending=pending,
            rejected=self.rejected,
            dropped={reason: events for reason, events in dropped.items() if events},
            replaced=replaced,
            adopted=self.adopted,
            handed_over=self.handed_over,
        )
