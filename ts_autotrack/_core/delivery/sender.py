"""The loop of the sender's thread: drains, exports, rests."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol

from ts_autotrack._core import diagnostics
from ts_autotrack._core.contract import MAX_ITEMS
from ts_autotrack._core.delivery.flush import FlushRequests

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.backoff import Pacing
    from ts_autotrack._core.delivery.destination import Destination
    from ts_autotrack._core.delivery.drainer import Drainer
    from ts_autotrack._core.delivery.exporter import Exporter
    from ts_autotrack._core.delivery.thread import BackgroundThread
    from ts_autotrack.typing import Transport

IDLE_INTERVAL = 1.0
"""Seconds between two looks of an idle thread: at the buffer, and at the periodic work of the outbox.

The next event wakes the thread earlier, except for a capture that was preempted between reading `append_limit` and
appending.
"""
NEVER = sys.maxsize


def _nothing() -> None:
    pass


class DrainMode(Protocol):
    """When and on which thread records move to the queue."""

    def on_record(self) -> None:
        """React to a record that was appended on the slow path."""
        ...

    def commit(self, timeout: float) -> None:
        """Put all records into a durable queue, if that can begin within `timeout` seconds."""
        ...

    def allow_appends(self) -> None:
        """Let captures append directly, if the sender decides about that."""
        ...

    def require_slow_path(self) -> None:
        """Make the next capture wake the sender, if the sender decides about that."""
        ...

    def stop(self) -> None:
        """Wake the mode's own thread, which ends once the sender has a `stop_at`."""
        ...


class Sender:
    """Delivers until it is told to stop. `run` belongs to the thread; other threads may call the other methods.

    Attributes:
        thread: The thread, for sleeping and waking.
        requests: Callers blocked in flush().
        wake_at_sequence: Sequence number of the record that wakes the sender early.
        on_idle: Called between two rounds, and about every second of a rest.
    """

    def __init__(
        self,
        thread: BackgroundThread,
        drainer: Drainer,
        counters: Counters,
        exporter: Exporter,
        destination: Destination,
        pacing: Pacing,
        main_thread_ended: Callable[[], bool],
    ) -> None:
        self.thread = thread
        self.requests = FlushRequests()
        self.wake_at_sequence = 1
        self.on_idle: Callable[[], None] = _nothing
        self._drainer = drainer
        self._counters = counters
        self._exporter = exporter
        exporter.count_waiting = lambda: drainer.pending
        self._destination = destination
        self._pacing = pacing
        self._eager_until = time.monotonic() + pacing.eager_period
        self._main_thread_ended = main_thread_ended
        self._resting = False

    @property
    def stop_at(self) -> float | None:
        """Monotonic time at which delivery ends; None while it goes on."""
        return self._exporter.deadline

    @stop_at.setter
    def stop_at(self, deadline: float) -> None:
        self._exporter.deadline = deadline  # also ends the export in progress

    @property
    def busy(self) -> bool:
        """True while the sender neither rests nor waits for an answer: it may need a lock of the application."""
        return not (self._resting or self._exporter.sending)

    def wake_if_due(self, *, now: bool = False) -> None:
        """Wake the sender if the record that it waits for was drained, or `now`."""
        if now or self._counters.taken >= self.wake_at_sequence:
            if self.thread.started:  # otherwise the next record tries again: the start may be interrupted
                self.wake_at_sequence = NEVER
            self.thread.wake()

    def run(self, mode: DrainMode) -> None:
        """Deliver events until `stop_at`; after that until nothing is left or time is up."""
        while not self._finished():
            try:
                self._deliver(mode)
            except Exception as error:  # noqa: BLE001 - the thread survives a fault
                self._exporter.postpone(IDLE_INTERVAL)
                diagnostics.fault("delivering events", error)
            diagnostics.report()
            if not self._finished():
                self.on_idle()
                self._rest(mode)

    def _finished(self) -> bool:
        if self.stop_at is None:
            return False
        exporter = self._exporter
        exporter.skip_backoff()
        return not self._drainer.pending or max(time.monotonic(), exporter.next_attempt_at) >= self.stop_at

    def _deliver(self, mode: DrainMode) -> None:
        """Drain and export until nothing is left, or the rest is neither due nor a full batch."""
        self.wake_at_sequence = NEVER
        self.thread.clear_wakeup()  # this round serves all wake-ups so far
        drainer, exporter = self._drainer, self._exporter
        while True:
            adopted = self._counters.adopted
            transport = self._current_transport()
            with drainer.lock:
                self.requests.assign(self._counters.taken + len(drainer.buffer.records))
            with drainer.lock:
                drainer.drain_batches()
            mode.allow_appends()
            drainer.queue.maintain()
            exporter.export(transport, self._destination.config.server.request_timeout, self._settle_requests)
            self._settle_requests()
            left = drainer.pending
            if not left or exporter.waiting or self._finished():
                return
            if self._counters.adopted > adopted:
                continue  # adopted events have waited long enough
            if left - exporter.passed < MAX_ITEMS and not self.requests and self.stop_at is None:
                return

    def _current_transport(self) -> Transport:
        transport, new = self._destination.transport()
        if new:
            self._exporter.reset_backoff()
        return transport

    def _rest(self, mode: DrainMode) -> None:
        """Sleep until the flush interval is over or the next attempt is due; without events, until the next one."""
        until = time.monotonic() + self._interval()
        drainer, counters, exporter = self._drainer, self._counters, self._exporter
        mode.allow_appends()
        full_batch = counters.taken + max(1, MAX_ITEMS - drainer.queue.pending + exporter.passed)
        self.wake_at_sequence = NEVER if exporter.waiting and exporter.blocked else full_batch
        adopted = counters.adopted
        while not self._sleep(until) and time.monotonic() < until and counters.adopted == adopted:
            drainer.queue.maintain()
            self.on_idle()
        while not (drainer.pending or self.requests or self.stop_at is not None):
            mode.require_slow_path()
            self.wake_at_sequence = counters.taken + 1
            if not drainer.pending and not self._sleep(NEVER):
                self.on_idle()
            drainer.queue.maintain()
        mode.allow_appends()

    def _sleep(self, until: float) -> bool:
        """Sleep for at most the idle interval, not beyond `until`; return True if somebody woke the thread."""
        self._resting = True
        woken = self.thread.sleep(min(until - time.monotonic(), IDLE_INTERVAL))
        self._resting = False
        if self.stop_at is None and self._main_thread_ended():
            self.stop_at = time.monotonic() + self._destination.config.exit_timeout
            return True
        return woken

    def _interval(self) -> float:
        now, exporter = time.monotonic(), self._exporter
        interval = self._destination.config.flush_interval
        if now < self._eager_until:
            interval = min(interval, self._pacing.eager_interval)
        if self.requests or self.stop_at is not None:
            exporter.skip_backoff()
            interval = interval if exporter.waiting else 0.0
        if exporter.waiting:  # newer events may be sent before that, unless the exporter is blocked
            remaining = exporter.next_attempt_at - now
            interval = remaining if exporter.blocked else min(interval, remaining)
        if self.stop_at is not None:
            interval = min(interval, self.stop_at - now)
        return interval

    def _settle_requests(self) -> None:
        """Finish every flush() whose events are all settled."""
        if not self.requests:
            return
        diagnostics.report()  # before `flush` returns
        with self._drainer.lock:
            oldest = self._drainer.queue.oldest_sequence()
            settled = self._counters.taken if oldest is None else oldest - 1
        self.requests.settle(settled)
