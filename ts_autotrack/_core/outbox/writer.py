"""Writer: this process's own file in an outbox, and the limit on the bytes of the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core.delivery.queue import total_size
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.file import SHRINK_BYTES, OutboxFile
from ts_autotrack._core.outbox.schema import CHUNK_PAGE, EVENT_PAGE

if TYPE_CHECKING:
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.queue import Item

COMMIT_PAGES = 4
"""Pages that a commit may add to the log beyond the bytes of its items."""

FULL = (
    "the outbox {} is full (TS_AUTOTRACK_OUTBOX_BYTES={}): new events are refused and counted as 'outbox_full' until "
    "the server takes some"
)


class Writer:
    """Creates the own file and decides how many items the file takes. Used by one thread at a time.

    Attributes:
        file: The own file; None before the first commit, and after the file was damaged.
        full: True if events were refused since the last scan of the directory.
    """

    def __init__(self, directory: str, max_bytes: int, *, per_event: bool, counters: Counters) -> None:
        self.file: OutboxFile | None = None
        self.full = False
        self._directory = directory
        self._max_bytes = max_bytes
        self._page_size = EVENT_PAGE if per_event else CHUNK_PAGE
        self._counters = counters
        self._unchecked = 0  # bytes that may be written before the next look at the sizes

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
        self._unchecked -= size + COMMIT_PAGES * self._page_size
        if self._unchecked >= 0:
            return items, size
        space = self._space(other_bytes, size)
        if size <= space:
            self._unchecked = (space - size) // 2
            return items, size
        kept = size = 0
        for _, body, _ in items:
            if size + len(body) > space:
                break
            size += len(body)
            kept += 1
        self._counters.drop("outbox_full", len(items) - kept)
        warn_once("outbox_full", FULL.format(self._directory, self._max_bytes))
        self.full = True
        return items[:kept], size

    def measure(self, other_bytes: int) -> int:
        """Look at the limit again, as of a new scan; return the bytes that the own file may waste.

        A directory that is half full has no space for the logs and free pages of busy processes.
        """
        self._unchecked, self.full = 0, False
        return SHRINK_BYTES if other_bytes + self._used() < self._max_bytes // 2 else 0

    def _space(self, other_bytes: int, needed: int) -> int:
        """Return the free bytes below the limit, after an attempt to free the needed ones in the own file."""
        space = self._max_bytes - other_bytes - self._used()
        if space < needed and self.file is not None:
            self.file.release_space(0)
            space = self._max_bytes - other_bytes - self._used()
        return space

    def _used(self) -> int:
        return self.file.used if self.file is not None else 0
