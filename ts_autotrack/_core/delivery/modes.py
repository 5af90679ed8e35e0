"""The three drain modes: on the sender's thread, on a thread of the outbox, or in the caller's call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core.delivery.sender import IDLE_INTERVAL
from ts_autotrack._core.delivery.thread import BackgroundThread
from ts_autotrack._core.identity.user_context import suppress

if TYPE_CHECKING:
    from ts_autotrack._core.delivery.drainer import Drainer
    from ts_autotrack._core.delivery.sender import Sender

COMMIT_INTERVAL = 0.02
"""Seconds between two commits to the outbox: an event is on disk 50 ms after the call at the latest."""


class SenderDrains:
    """Without an outbox: captures append directly and wake the sender, which drains."""

    def __init__(self, drainer: Drainer, sender: Sender) -> None:
        self._drainer = drainer
        self._sender = sender

    def on_record(self) -> None:
        """See `DrainMode`."""
        thread = self._sender.thread
        if thread.wake() and thread.started:  # otherwise the next record tries again: the start may be interrupted
            self._drainer.allow_appends()

    def commit(self, timeout: float) -> None:
        """Memory is not durable."""

    def allow_appends(self) -> None:
        """See `DrainMode`."""
        self._drainer.allow_appends()

    def require_slow_path(self) -> None:
        """See `DrainMode`."""
        self._drainer.buffer.require_slow_path()

    def stop(self) -> None:
        """There is no further thread."""


class CallerDrains:
    """Outbox with durability="event": each capture drains before it returns."""

    def __init__(self, drainer: Drainer, sender: Sender) -> None:
        self._drainer = drainer
        self._sender = sender

    def on_record(self) -> None:
        """See `DrainMode`."""
        if self._drainer.drain():
            self._sender.wake_if_due(now=bool(self._drainer.buffer.records))

    def commit(self, timeout: float) -> None:
        """See `DrainMode`."""
        if self._drainer.drain_within(timeout):
            self._sender.wake_if_due(now=bool(self._drainer.buffer.records))

    def allow_appends(self) -> None:
        """No capture appends directly."""

    def require_slow_path(self) -> None:
        """Every capture takes the slow path."""

    def stop(self) -> None:
        """There is no further thread."""


class OutboxThreadDrains:
    """Outbox with durability="batch": a thread commits every 20 ms, also while a request hangs."""

    def __init__(self, drainer: Drainer, sender: Sender) -> None:
        self._drainer = drainer
        self._sender = sender
        self._thread = BackgroundThread(self._run, "ts_autotrack outbox")

    def on_record(self) -> None:
        """See `DrainMode`. The caller drains if no thread can be started."""
        if not self._thread.wake():
            self._drain()
        elif self._thread.started:  # otherwise the next record tries again: the start may be interrupted
            self._drainer.allow_appends()

    def commit(self, timeout: float) -> None:
        """See `DrainMode`."""
        if self._drainer.drain_within(timeout):
            self._sender.wake_if_due()

    def allow_appends(self) -> None:
        """The outbox thread decides."""

    def require_slow_path(self) -> None:
        """The outbox thread decides."""

    def stop(self) -> None:
        """See `DrainMode`."""
        if self._thread.started:
            self._thread.wake()

    def _drain(self) -> None:
        if self._drainer.drain():
            self._sender.wake_if_due()

    def _run(self) -> None:
        with suppress():
            while self._sender.stop_at is None:
                self._drain()
                self._drainer.allow_appends()
                self._thread.sleep(COMMIT_INTERVAL if self._drainer.queue.capacity > 0 else IDLE_INTERVAL)
                buffer = self._drainer.buffer
                if not buffer.records and self._sender.stop_at is None:
                    buffer.require_slow_path()
                    if not buffer.records:  # pragma: no branch - an event may have arrived just now
                        self._thread.sleep(IDLE_INTERVAL)
