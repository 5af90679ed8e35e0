"""Writer: this process's own file in an outbox, and the limit on the bytes of the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core.delivery.queue import total_size
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.file import OutboxFile
from ts_autotrack._core.outbox.schema import CHUNK_PAGE, EVENT_PAGE

if TYPE_CHECKING:
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.queue import Item

FULL = (
    "the outbox {} is full (TS_AUTOTRACK_OUTBOX_BYTES={}): new events are refused and counted as 'outbox_full' until "
    "the server takes some"
)


class Writer:
    """Creates the own file and decides how many items the file takes. Used by one thread at a time.

    Attributes:
        file: The own file; None before the first commit, and after the file was deleted or damaged.
    """

    def __init__(self, directory: str, max_bytes: int, *, per_event: bool, counters: Counters) -> None:
        self.file: OutboxFile | None = None
        self._directory = directory
        self._max_bytes = max_bytes
        self._page_size = EVENT_PAGE if per_event else CHUNK_PAGE
        self._counters = counters

    def open(self) -> OutboxFile:
        """Return the own file; create the file if there is none.

        Raises:
            OSError: See `OutboxFile.create`.
            sqlite3.Error: See `OutboxFile.create`.
        """
        if self.file is None:
            self.file = OutboxFile.create(self._directory, page_size=self._page_size)
        return self.file

    def limit(self, items: list[Item], other_bytes: int) -> tuple[list[Item], int]:
        """Drop the newest items, as far as the directory is full.

        Args:
            items: Items to be written.
            other_bytes: Bytes of the other files in the directory.

        Returns:
            The oldest items, and their bytes.
        """
        size = total_size(items)
        used = other_bytes + (self.file.size if self.file is not None else 0)
        if used + size <= self._max_bytes:
            return items, size
        kept = size = 0
        for _, body, _ in items:
            if used + size + len(body) > self._max_bytes:
                break
            size += len(body)
            kept += 1
        self._counters.drop("outbox_full", len(items) - kept)
        warn_once("outbox_full", FULL.format(self._directory, self._max_bytes))
        return items[:kept], size
