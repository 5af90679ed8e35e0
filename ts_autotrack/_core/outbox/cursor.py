"""Cursor: the items of an outbox to be sent next, from one file or from memory."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from ts_autotrack._core.contract import MAX_BODY
from ts_autotrack._core.delivery.queue import MAX_QUEUED, MAX_QUEUED_BYTES, remove_first, total_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack._core.outbox.file import OutboxFile

MAX_BYTES = MAX_QUEUED_BYTES + 5 * MAX_BODY
"""Bytes of the items while newer ones go around others that wait."""


class Cursor:
    """The items to be sent next, all of one source. Used by one thread at a time.

    Attributes:
        items: The items, oldest first.
        source: The file that holds the items; None if only memory holds them.
    """

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.source: OutboxFile | None = None
        self._bytes = 0
        self._chunks: deque[tuple[int, int]] = deque()  # chunk id and number of unsettled items, oldest first
        self._last_read: dict[OutboxFile, int] = {}  # id of the last chunk read, by file

    @property
    def in_memory(self) -> int:
        """Number of items that only memory holds."""
        return len(self.items) if self.source is None else 0

    @property
    def full(self) -> bool:
        """True if no further item is to be loaded beside the present ones."""
        return self._bytes >= MAX_BYTES

    def count(self, file: OutboxFile) -> int:
        """Return the number of items from `file`."""
        return len(self.items) if self.source is file else 0

    def peek(self, most: int) -> list[Item]:
        """Return up to `most` of the first items."""
        return list(islice(self.items, most))

    def load(self, file: OutboxFile) -> bool:
        """Add the next chunks of a file; return False if the file has none.

        Raises:
            sqlite3.Error: The file cannot be read.
        """
        chunks = file.read(self._last_read.get(file, 0))
        self.source = file
        for chunk in chunks:
            items = [(chunk.path, body, chunk.first + index) for index, body in enumerate(chunk.items)]
            self._add(file, items, total_size(items), [(chunk.id, len(items))])
        return bool(chunks)

    def add_committed(self, file: OutboxFile, items: list[Item], size: int, chunks: list[tuple[int, int]]) -> None:
        """Add items just committed to `file`, unless the cursor holds many or large ones already.

        Reading and splitting the chunks later costs 0.6 us an event, a fifth of all delivery.

        Args:
            file: The file.
            items: The items.
            size: Bytes of the items.
            chunks: The result of `OutboxFile.append`.
        """
        if len(self.items) + len(items) <= MAX_QUEUED and self._bytes + size <= MAX_QUEUED_BYTES:
            self.source = file
            self._add(file, items, size, chunks)

    def add_from_memory(self, items: list[Item]) -> None:
        """Add items that only memory holds."""
        self.source = None
        self.items.extend(items)
        self._bytes += total_size(items)

    def commit(self, file: OutboxFile) -> None:
        """Commit the items, which only memory holds, to an empty file.

        Raises:
            sqlite3.Error: The file cannot be written.
        """
        self._chunks = deque(file.append(list(self.items)))
        self.source = file
        self._last_read[file] = self._chunks[-1][0]

    def acknowledge(self, count: int, passed: Sequence[int] = ()) -> None:
        """Remove the first `count` items, except those at the positions `passed`, also from their file.

        Raises:
            sqlite3.Error: The file cannot be written; the cursor has removed the items.
        """
        size = remove_first(self.items, count, passed)
        self._bytes -= size
        if self.source is None:
            return
        if passed:
            changes = self._remove_among_chunks(count, passed)
            self.source.remove_some(count - len(passed), size, changes)
        else:
            through, rest = self._remove_from_chunks(count)
            self.source.remove(count, size, through, [self.items[index][1] for index in range(rest)])

    def rewind(self) -> None:
        """Remove all items, but not from their file; the next `load` begins with the oldest one of the file."""
        if self.source is not None:
            self._last_read.pop(self.source, None)
        self.clear()

    def reload(self, file: OutboxFile) -> None:
        """Read a file again after a change; the items at the front stay the same.

        Raises:
            sqlite3.Error: The file cannot be read.
        """
        if self.source is file:
            length = len(self.items)
            self.clear()
            self._last_read.pop(file, None)
            while len(self.items) < length and self.load(file):
                pass

    def forget(self, file: OutboxFile) -> None:
        """Drop all references to a file; from here on only memory holds the items."""
        self._last_read.pop(file, None)
        if self.source is file:
            self.source = None
            self._chunks.clear()

    def clear(self) -> None:
        """Remove all items, but not from their file."""
        self.items.clear()
        self._chunks.clear()
        self._bytes = 0

    def _add(self, file: OutboxFile, items: list[Item], size: int, chunks: list[tuple[int, int]]) -> None:
        self.items.extend(items)
        self._bytes += size
        self._chunks.extend(chunks)
        self._last_read[file] = chunks[-1][0]

    def _remove_from_chunks(self, count: int) -> tuple[int, int]:
        """Remove the first `count` items from the list of chunks.

        Returns:
            Id of the last chunk with no items left; number of items left in the next chunk, or 0 if the next chunk is
            untouched.
        """
        through = rest = 0
        while count:
            number, items = self._chunks.popleft()
            if items > count:
                rest = items - count
                self._chunks.appendleft((number, rest))
                break
            count -= items
            through = number
        if rest:
            through = self._chunks[0][0] - 1
        return through, rest

    def _remove_among_chunks(self, count: int, passed: Sequence[int]) -> list[tuple[int, list[bytes]]]:
        """Remove the first `count` items, except those at the positions `passed`, from the list of chunks.

        Returns:
            Ids of the changed chunks, each with the items left in the chunk.
        """
        changes: list[tuple[int, list[bytes]]] = []
        chunks: list[tuple[int, int]] = []
        kept, first, index = set(passed), 0, 0  # `first` and `index`: positions before and after the removal
        while first < count:
            number, items = self._chunks.popleft()
            removed = sum([position not in kept for position in range(first, min(first + items, count))])
            left = items - removed
            if removed:
                changes.append((number, [item[1] for item in islice(self.items, index, index + left)]))
            if left:
                chunks.append((number, left))
            first += items
            index += left
        self._chunks.extendleft(reversed(chunks))
        return changes
