"""Items waiting to be sent: the interface of every event queue, and the queue in memory."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ts_autotrack.typing import RejectedItem

Item: TypeAlias = tuple[str, bytes, int]
"""Endpoint, encoded item, sequence number of its record in this process. A NamedTuple takes 250 ns longer to make."""

MAX_QUEUED = 2 * MAX_ITEMS
"""Items in memory. While the server is away further events wait as records, which are smaller."""
MAX_QUEUED_BYTES = 2 * MAX_BODY
"""Bytes of the items in memory."""


def total_size(items: Iterable[Item]) -> int:
    """Return the bytes of the items."""
    return sum([len(body) for _, body, _ in items])


def remove_first(items: deque[Item], count: int, passed: Sequence[int]) -> int:
    """Remove the first `count` items, except those at the positions `passed`; return the bytes removed."""
    size, kept = 0, [items[position] for position in passed]
    for _ in range(count):
        size += len(items.popleft()[1])
    items.extendleft(reversed(kept))
    return size - total_size(kept)


class EventQueue(Protocol):
    """Unsettled items, oldest first. The Drainer fills it, the Exporter empties it, perhaps on two threads."""

    @property
    def pending(self) -> int:
        """Unsettled events."""
        ...

    @property
    def durable(self) -> int:
        """Unsettled events that survive the process."""
        ...

    @property
    def capacity(self) -> int:
        """Items that `put` takes at the moment."""
        ...

    def put(self, items: list[Item]) -> None:
        """Append items."""
        ...

    def take_over(self, items: list[Item]) -> None:
        """Append the items that earlier workers of this process left: in files of this queue, then in memory.

        Args:
            items: Items that the last one of these workers left in memory.
        """
        ...

    def recover(self, after: int, through: int) -> bool:
        """Repair the state after an exception in the middle of `put`.

        Args:
            after: Sequence number before the first record of that `put`.
            through: Sequence number of its last record.

        Returns:
            True if the queue holds items of these records.
        """
        ...

    def peek(self, most: int) -> list[Item]:
        """Return up to `most` of the oldest items; they stay until `acknowledge` or `reject`."""
        ...

    def acknowledge(self, count: int, passed: Sequence[int] = ()) -> None:
        """Remove the first `count` items, except those at the positions `passed`: they have arrived."""
        ...

    def reject(self, items: list[RejectedItem], count: int, passed: Sequence[int] = ()) -> None:
        """Remove items like `acknowledge`, and keep `items` in the quarantine, if the queue has one."""
        ...

    def rotate(self, *, in_order: bool) -> bool:
        """Let the next `peek` return further items, perhaps those of another file; return False if there are none.

        Args:
            in_order: True if the items of this process have to keep their order.
        """
        ...

    def oldest_sequence(self) -> int | None:
        """Return a lower bound for the sequence number of this process's oldest unsettled record; None if none is."""
        ...

    def maintain(self) -> None:
        """Do periodic work, such as retries of a broken disk."""
        ...

    def close(self) -> list[Item]:
        """Close the queue and return the items that only memory holds."""
        ...


class MemoryQueue:
    """Items in memory."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._batches = 1  # requests' worth of items that the last `peek` asked for

    @property
    def pending(self) -> int:
        """See `EventQueue`."""
        return len(self._items)

    @property
    def durable(self) -> int:
        """See `EventQueue`."""
        return 0

    @property
    def capacity(self) -> int:
        """See `EventQueue`."""
        if self._bytes >= MAX_QUEUED_BYTES + (self._batches - 1) * MAX_BODY:
            return 0
        return max(0, MAX_QUEUED + (self._batches - 1) * MAX_ITEMS - len(self._items))

    def put(self, items: list[Item]) -> None:
        """See `EventQueue`."""
        self._items.extend(items)
        self._bytes += total_size(items)

    def take_over(self, items: list[Item]) -> None:
        """See `EventQueue`."""
        self.put(items)

    def recover(self, after: int, through: int) -> bool:
        """See `EventQueue`."""
        self._bytes = total_size(self._items)
        return bool(self._items) and after < self._items[-1][2] <= through

    def peek(self, most: int) -> list[Item]:
        """See `EventQueue`. Beyond a request's worth, `put` takes as many items more."""
        self._batches = -(-most // MAX_ITEMS)
        return list(islice(self._items, most))

    def acknowledge(self, count: int, passed: Sequence[int] = ()) -> None:
        """See `EventQueue`."""
        self._bytes -= remove_first(self._items, count, passed)

    def reject(self, items: list[RejectedItem], count: int, passed: Sequence[int] = ()) -> None:
        """See `EventQueue`. The account keeps the last rejected items."""
        del items
        self.acknowledge(count, passed)

    def rotate(self, *, in_order: bool) -> bool:
        """There are no files."""
        del in_order
        return False

    def oldest_sequence(self) -> int | None:
        """See `EventQueue`."""
        return self._items[0][2] if self._items else None

    def maintain(self) -> None:
        """Nothing is ever due."""

    def close(self) -> list[Item]:
        """See `EventQueue`."""
        left = list(self._items)
        self._items.clear()
        self._bytes = 0
        return left
