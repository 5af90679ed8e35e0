"""The items of an outbox that are to be sent next: of one file, or of memory where the disk did not take them."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ts_autotrack._core.delivery.queue import MAX_QUEUED, MAX_QUEUED_BYTES

if TYPE_CHECKING:
    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack._core.outbox.file import OutboxFile


class Head:
    """Used by one thread at a time.

    Attributes:
        items: The items, oldest first.
        source: The file that they are in; None if they are in memory only.
    """

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.source: OutboxFile | None = None
        self._size = 0
        self._chunks: deque[tuple[int, int]] = deque()  # what the items are of: a chunk's id, and how many are left
        self._read: dict[OutboxFile, int] = {}  # the last chunk that was read of a file

    @property
    def in_memory(self) -> int:
        """How many items are in memory only."""
        return len(self.items) if self.source is None else 0

    def of(self, file: OutboxFile) -> int:
        """How many items are in `file`."""
        return len(self.items) if self.source is file else 0

    def load(self, file: OutboxFile) -> bool:
        """Add what comes next in a file; return whether there is anything.

        Raises:
            sqlite3.Error: If it cannot be read.
        """
        chunks = file.load(self._read.get(file, 0))
        self.source = file
        for chunk in chunks:
            items = [(chunk.path, body, chunk.first + n) for n, body in enumerate(chunk.items)]
            self._add(file, items, sum(map(len, chunk.items)), [(chunk.id, len(items))])
        return bool(chunks)

    def keep(self, file: OutboxFile, items: list[Item], size: int, chunks: list[tuple[int, int]]) -> None:
        """Add items of so many bytes that have just been committed, unless there are many or large ones already.

        Reading them back and taking them apart costs 0.6 us an event, a fifth of all delivery.
        """
        if len(self.items) + len(items) <= MAX_QUEUED and self._size + size <= MAX_QUEUED_BYTES:
            self.source = file
            self._add(file, items, size, chunks)

    def take(self, item: Item) -> None:
        """Add an item that is in memory only."""
        self.source = None
        self.items.append(item)
        self._size += len(item[1])

    def _add(self, file: OutboxFile, items: list[Item], size: int, chunks: list[tuple[int, int]]) -> None:
        self.items.extend(items)
        self._size += size
        self._chunks.extend(chunks)
        self._read[file] = chunks[-1][0]

    def save(self, file: OutboxFile) -> None:
        """Commit the items, which were in memory only, to a file that has none.

        Raises:
            sqlite3.Error: If it does not take them.
        """
        self._chunks = deque(file.append(list(self.items)))
        self.source = file
        self._read[file] = self._chunks[-1][0]

    def settle(self, count: int) -> None:
        """Remove the first items, from their file, too.

        Raises:
            sqlite3.Error: If the file could not be written to; the items are gone from here.
        """
        size = 0
        for _ in range(count):
            size += len(self.items.popleft()[1])
        self._size -= size
        if self.source is None:
            return
        left, through, rest = count, 0, 0
        while left:
            number, items = self._chunks.popleft()
            if items > left:
                rest = items - left
                self._chunks.appendleft((number, rest))
                break
            left -= items
            through = number
        through = through or self._chunks[0][0] - 1
        self.source.settle(count, size, through, [self.items[n][1] for n in range(rest)])

    def reload(self, file: OutboxFile) -> None:
        """Read a file again whose content may have changed; what is being sent stays at the front.

        Raises:
            sqlite3.Error: If it cannot be read.
        """
        if self.source is file:
            length = len(self.items)
            self.clear()
            self._read.pop(file, None)
            while len(self.items) < length and self.load(file):
                pass

    def forget(self, file: OutboxFile) -> None:
        """Regard the items as in memory only, if they are of this file, which is no good any more."""
        self._read.pop(file, None)
        if self.source is file:
            self.source = None
            self._chunks.clear()

    def clear(self) -> None:
        """Start over with none."""
        self.items.clear()
        self._chunks.clear()
        self._size = 0
