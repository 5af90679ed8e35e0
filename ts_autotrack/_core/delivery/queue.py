"""Encoded items on their way: what the exporter works on, whether they wait in memory or in an outbox."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from ts_autotrack._core.capture.buffer import BATCH_ITEMS
from ts_autotrack._core.delivery.encoder import MOST_BYTES

if TYPE_CHECKING:
    from ts_autotrack._core.delivery.encoder import Item
    from ts_autotrack.typing import RejectedItem

MOST_ENCODED = 2 * BATCH_ITEMS
"""Items that wait encoded in memory; while the server is away others wait as records, which are smaller."""


class EventQueue(Protocol):
    """Items that are not settled, oldest first. Filled by `Intake`, emptied by `Exporter`, perhaps on two threads."""

    @property
    def pending(self) -> int:
        """Events that are not settled."""
        ...

    @property
    def durable(self) -> int:
        """How many of them survive the process."""
        ...

    @property
    def room(self) -> int:
        """Items that `put` takes at the moment."""
        ...

    def put(self, items: list[Item]) -> None:
        """Take items at the end."""
        ...

    def recover(self, after: int, through: int) -> bool:
        """Mend what an exception in the middle of `put` has left; return whether it holds items of these records."""
        ...

    def head(self, most: int) -> list[Item]:
        """Return up to `most` items to send next; they stay at the head until they are settled."""
        ...

    def settle(self, count: int) -> None:
        """Forget the first `count` items of the head: they have arrived."""
        ...

    def reject(self, item: RejectedItem) -> None:
        """Set the first item of the head aside for good."""
        ...

    def oldest(self) -> int | None:
        """Return the number of the oldest record of this process that is not settled, at the least; None if all are."""
        ...

    def tend(self) -> None:
        """Do what is due now and then."""
        ...

    def close(self) -> list[Item]:
        """End, and return the items that are in memory only."""
        ...


class MemoryQueue:
    """Items in memory."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._bytes = 0

    @property
    def pending(self) -> int:
        """See `EventQueue`."""
        return len(self._items)

    @property
    def durable(self) -> int:
        """See `EventQueue`."""
        return 0

    @property
    def room(self) -> int:
        """See `EventQueue`."""
        return MOST_ENCODED - len(self._items) if self._bytes < MOST_BYTES else 0

    def put(self, items: list[Item]) -> None:
        """See `EventQueue`."""
        self._items.extend(items)
        self._bytes += sum([len(body) for _, body, _ in items])

    def recover(self, after: int, through: int) -> bool:
        """See `EventQueue`."""
        self._bytes = sum([len(body) for _, body, _ in self._items])
        return bool(self._items) and after < self._items[-1][2] <= through

    def head(self, most: int) -> list[Item]:
        """See `EventQueue`."""
        return list(islice(self._items, most))

    def settle(self, count: int) -> None:
        """See `EventQueue`."""
        for _ in range(count):
            self._bytes -= len(self._items.popleft()[1])

    def reject(self, item: RejectedItem) -> None:
        """See `EventQueue`."""
        del item  # the account keeps the last ones
        self.settle(1)

    def oldest(self) -> int | None:
        """See `EventQueue`."""
        return self._items[0][2] if self._items else None

    def tend(self) -> None:
        """Nothing is ever due."""

    def close(self) -> list[Item]:
        """See `EventQueue`."""
        left = list(self._items)
        self._items.clear()
        self._bytes = 0
        return left
