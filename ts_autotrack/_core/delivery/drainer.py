"""The drainer: moves records from the buffer to the event queue, encoded and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture.monitor import monitor
from ts_autotrack._core.locks import HeldWithin, owns

if TYPE_CHECKING:
    from _thread import RLock

    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.capture.record import Record
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.encoder import Encoder
    from ts_autotrack._core.delivery.queue import EventQueue, Item
    from ts_autotrack.typing import DropReason


class Drainer:
    """Runs on a caller's thread or on one of the library's, one thread at a time.

    Attributes:
        buffer: Source of the records.
        queue: Destination of the items.
        lock: The process's lock for encoding and for the outbox. A caller waits for the lock only with
            durability="event".
    """

    def __init__(self, buffer: Buffer, encoder: Encoder, queue: EventQueue, counters: Counters, lock: RLock) -> None:
        self.buffer = buffer
        self.queue = queue
        self.lock = lock
        self._encoder = encoder
        self._counters = counters
        self._closed = False
        # The batch in progress: its records, `counters.taken` and `counters.dropped` before it.
        self._batch: tuple[list[Record], int, dict[DropReason, int]] | None = None

    @property
    def holds_lock(self) -> bool:
        """True if this thread holds the lock: a finalizer or signal handler inside must not wait for anything."""
        return owns(self.lock)

    @property
    def pending(self) -> int:
        """Events in the buffer and in the queue."""
        return len(self.buffer.records) + self.queue.pending

    def drain(self) -> bool:
        """Move all records to the queue now; return False if that failed or has to wait. Never raises."""
        if self.holds_lock:
            return False  # a finalizer or signal handler: its record is drained later
        try:
            # `with` releases the lock even if a signal handler raises; `try` and `finally` do not.
            with self.lock:
                if self._closed:
                    return False  # the buffer belongs to the next worker
                self.drain_batches()
        except Exception as error:  # noqa: BLE001 - the barrier
            diagnostics.fault("draining events", error)
            return False
        return True

    def drain_within(self, seconds: float) -> bool:
        """Drain if the lock is free within this time: at the end of the process its holder may be gone."""
        if self.holds_lock:
            return False
        with HeldWithin(self.lock, seconds) as free:
            pass
        return free and self.drain()

    def drain_batches(self) -> None:
        """Move the records present at the start, as far as the queue has capacity. The caller holds the lock.

        Later records wait for the next call: tracked code that runs in here could add records without end.
        """
        if self._batch is not None:
            self._recover(*self._batch)
        monitor.keep()
        left = len(self.buffer.records)
        try:
            while left > 0 and (capacity := self.queue.capacity) > 0:
                left -= self._drain_batch(min(capacity, left))
        except BaseException:  # of a signal handler
            if self._batch is not None:
                self._recover(*self._batch)  # at once: the sender would deliver items that are not counted yet
            raise

    def close(self) -> list[Item]:
        """Close the queue and return the items that only memory holds."""
        with self.lock:
            self._closed = True
            return self.queue.close()

    def allow_appends(self) -> None:
        """Let captures append directly, as far as the limit allows beside the items in memory."""
        self.buffer.queued = self.queue.pending - self.queue.durable
        self.buffer.allow_appends()

    def _drain_batch(self, most: int) -> int:
        """Move up to `most` records, fewer if they are large; return the number of records handled."""
        counters = self._counters
        records, taken = self.buffer.peek(most), counters.taken
        self._batch = records, taken, counters.dropped.copy()
        try:
            items, done = self._encoder.encode(records, taken, backed_up=self.buffer.backed_up)
            del records[done:]
            self.queue.put(items)
        except Exception:
            # A signal handler of the application may have raised after the items were committed.
            if not self.queue.recover(taken, taken + len(records)):
                counters.drop("fault", len(records))
            self._finish_batch(records, taken)
            raise
        self._finish_batch(records, taken)
        return len(records) or most

    def _finish_batch(self, records: list[Record], taken: int) -> None:
        counters = self._counters
        counters.moving = True
        try:
            counters.taken = taken + len(records)
            self.buffer.remove(records)
            self._batch = None
        finally:
            counters.moving = False

    def _recover(self, records: list[Record], taken: int, dropped: dict[DropReason, int]) -> None:
        """Finish or undo a batch that a Ctrl-C or a raising signal handler interrupted."""
        if self.queue.recover(taken, taken + len(records)):
            self._finish_batch(records, taken)
        else:  # the records are still in the buffer and get the same ids again
            self._counters.taken, self._counters.dropped, self._batch = taken, dropped, None
