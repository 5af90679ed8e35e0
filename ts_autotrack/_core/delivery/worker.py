"""The owner of the library's threads in one process, as other threads see it."""

from __future__ import annotations

import _thread
import time
from typing import TYPE_CHECKING, Literal

from ts_autotrack._core import diagnostics
from ts_autotrack._core.delivery.exporter import Exporter
from ts_autotrack._core.delivery.modes import CallerDrains, OutboxThreadDrains, SenderDrains
from ts_autotrack._core.delivery.reporter import Reporter
from ts_autotrack._core.delivery.sender import DrainMode, Sender
from ts_autotrack._core.delivery.thread import UNCERTAIN, BackgroundThread, OneShotEvent
from ts_autotrack._core.identity.user_context import suppress

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.backoff import Pacing
    from ts_autotrack._core.delivery.destination import Destination
    from ts_autotrack._core.delivery.drainer import Drainer
    from ts_autotrack._core.delivery.flush import FlushRequest
    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack._core.delivery.reporter import ReportFile
    from ts_autotrack.typing import Stats, Transport


POLL_INTERVAL = 0.02
"""Seconds between two looks at the exporter at the end of a process with an outbox."""
PATIENCE = 0.03
"""Seconds after which a report in progress is ended, if the end of the process or `flush` waits for it."""


class Worker:
    """Drains, exports and rests until `stop`. Its successor begins once it has ended.

    Attributes:
        destination: Settings in force and their transport.
        in_memory: False: this worker sends.
        left: Items that `stop` could not settle and no outbox holds; the next worker takes them.
    """

    in_memory: Literal[False] = False

    def __init__(
        self,
        drainer: Drainer,
        counters: Counters,
        destination: Destination,
        pacing: Pacing,
        predecessor: Worker | None,
        main_thread_ended: Callable[[], bool],
        report_file: ReportFile | None,
    ) -> None:
        self.destination = destination
        self.left: list[Item] = []
        self._drainer = drainer
        self._counters = counters
        self._predecessor = predecessor
        self._claim = _thread.allocate_lock()
        self._ended = OneShotEvent()
        self._exporter = Exporter(drainer.queue, counters, pacing)
        self._exporter.request_lock = destination.request_lock
        self._thread = BackgroundThread(self._run, "ts_autotrack")
        self._sender = Sender(self._thread, drainer, counters, self._exporter, destination, pacing, main_thread_ended)
        self._mode = _mode_for(destination.config, drainer, self._sender)
        self._reporter = Reporter(destination, counters, self._stats, report_file)

    def move_to(self, buffer: Buffer) -> None:
        """Go on with the records of another buffer. The caller holds the drain lock."""
        self._drainer.buffer = buffer
        if self._predecessor is not None:
            self._predecessor.move_to(buffer)

    def on_record(self) -> None:
        """React to a record that was appended on the slow path."""
        self._mode.on_record()

    def commit(self, timeout: float) -> None:
        """With an outbox: put all records on disk, if that can begin within `timeout` seconds."""
        self._mode.commit(timeout)

    def wake(self) -> bool:
        """Make the sender look for work now; return False if no thread can be started."""
        return self._thread.wake()

    def reconfigure(self, config: Config, open_transport: Callable[[], Transport]) -> None:
        """Use other settings from the next request on."""
        if config.outbox != self.destination.config.outbox:
            diagnostics.warn_now(("setting", "outbox"), _OUTBOX_SET_LATE)
        self.destination.change(config, open_transport)
        self.wake()

    def as_predecessor(self) -> Worker | None:
        """Return the worker whose items the next worker takes over; None without one."""
        return self

    def cancel_request(self) -> None:
        """End the request in progress."""
        self.destination.cancel()

    def request_flush(self) -> FlushRequest:
        """Return a request that is done when all events tracked so far are settled."""
        return self._sender.requests.add()

    def cancel(self, request: FlushRequest) -> None:
        """Give up a request."""
        self._sender.requests.cancel(request)

    def flush(self, timeout: float) -> bool:
        """Wait until all events tracked so far are settled; return False if `timeout` seconds were too short."""
        request = self.request_flush()
        settled = self.wait_for(request, timeout)
        self.cancel(request)
        return settled

    def wait_for(self, request: FlushRequest, timeout: float) -> bool:
        """Wait until a request is settled; return False if `timeout` seconds were too short."""
        if self._drainer.holds_lock:
            timeout = 0.0  # a signal handler inside our own work: nothing proceeds while the handler waits
        # A log handler of the application may call flush() on the sender's own thread.
        if not self.wake() or self.ended or self._thread.current:
            return not self.pending
        if not self._thread.started and not request.done.wait(min(timeout, UNCERTAIN)):
            timeout = max(0.0, timeout - UNCERTAIN)
            self.wake()  # a signal handler interrupted the start, which is repeated after this time
        if not request.done.wait(min(timeout, PATIENCE)):
            self._reporter.interrupt()
            request.done.wait(max(0.0, timeout - PATIENCE))
        return request.settled

    def stop(self, timeout: float, grace: float | None = None) -> bool:
        """Export the rest for at most `timeout` seconds, then end; return True if all events are settled.

        Args:
            timeout: Seconds in which requests may begin.
            grace: For events that an outbox holds: seconds to wait for a request under way, which given up might be
                sent twice. The wait ends with the first failure. None: wait for `timeout`, whatever happens.
        """
        if self._drainer.holds_lock:
            timeout = 0.0  # as in `wait_for`
        self._sender.stop_at = time.monotonic() + timeout
        self._mode.stop()
        if not self._thread.started:
            self._run()  # no thread could be started: the caller does the work
        else:
            self.wake()
        if not self._thread.current and not self._wait_for_end(timeout, grace):
            self.destination.cancel()
        return not self.pending

    def _wait_for_end(self, timeout: float, grace: float | None) -> bool:
        """Return True once the thread has ended; False if that takes too long, or with a `grace` if a request fails."""
        deadline = time.monotonic() + timeout
        if self._ended.wait(min(timeout, PATIENCE)):
            return True
        self._reporter.interrupt()
        timeout = max(0.0, deadline - time.monotonic())
        if grace is None:
            return self._ended.wait(timeout)
        deadline = time.monotonic() + max(timeout, grace)
        while not self._ended.wait(min(POLL_INTERVAL, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline or (self.failing and self.in_backoff and not self.in_flight):
                return False
        return True

    @property
    def may_be_stuck(self) -> bool:
        """True if the sender may need a lock that the calling thread holds."""
        return self._drainer.holds_lock or self._sender.busy

    @property
    def ended(self) -> bool:
        """True if this worker delivers nothing more."""
        return self._ended.is_set

    @property
    def stopping(self) -> bool:
        """True after `stop`."""
        return self._sender.stop_at is not None

    @property
    def waiting_flushes(self) -> int:
        """Number of callers blocked in flush()."""
        return len(self._sender.requests)

    @property
    def in_backoff(self) -> bool:
        """True after a failed attempt, until the next one is due."""
        return self._exporter.waiting and self._exporter.blocked

    @property
    def failing(self) -> bool:
        """True after a failed request, until one is accepted."""
        return self._exporter.failing

    @property
    def answered(self) -> bool:
        """True once the server has accepted an event."""
        return self._counters.delivered > 0

    @property
    def in_flight(self) -> int:
        """Events of the request in progress."""
        return self._exporter.sending

    @property
    def pending(self) -> int:
        """Unsettled events, including adopted ones and the predecessors'."""
        return len(self._drainer.buffer.records) + self.queued

    @property
    def queued(self) -> int:
        """Unsettled events beyond the buffer."""
        predecessor = self._predecessor
        own = self._drainer.queue.pending + len(self.left)
        return own + (predecessor.queued if predecessor is not None else 0)

    @property
    def durable(self) -> int:
        """Unsettled events that survive the process."""
        return self._drainer.queue.durable + (self._predecessor.durable if self._predecessor is not None else 0)

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):  # pragma: no cover - a race
            return  # either the thread or the caller of `stop` does the work
        with suppress():  # events of a tracked HTTP client or log handler end here
            try:
                self._succeed()
                if self._thread.current:  # otherwise an application's thread does the work
                    self._sender.on_idle = self._report
                self._sender.run(self._mode)
                if self._thread.current and self._reports:
                    self._reporter.finish(self._sender.stop_at)
            finally:
                self._end()

    def _succeed(self) -> None:
        """Wait for the predecessor's last request, and take over its items."""
        predecessor = self._predecessor
        if predecessor is None:
            return
        predecessor._ended.wait(-1)  # noqa: SLF001 - of an instance of this class
        try:
            with self._drainer.lock:
                self._drainer.queue.take_over(predecessor.left)
                predecessor.left = []
                self._counters.handed_over += predecessor.durable  # for this process or another one to adopt
                self._predecessor = None
        except Exception as error:  # noqa: BLE001 - the barrier; the items stay pending
            diagnostics.fault("taking over events", error)

    def _stats(self) -> Stats:
        return self._drainer.buffer.stats(self._counters, self.pending, self.in_flight)

    @property
    def _reports(self) -> bool:
        """False after the settings have turned the library off."""
        return self._drainer.buffer.close_reason in (None, "shutdown")

    def _report(self) -> None:
        if self._reports:
            self._reporter.run()

    def _end(self) -> None:
        try:
            self.left = self._drainer.close()
        finally:
            self._ended.set()  # the next worker waits for this event
        self._drainer.buffer.require_slow_path()  # if the process goes on, the next record finds a new worker
        self._sender.requests.close()
        self.destination.close()
        diagnostics.report()


_OUTBOX_SET_LATE = (
    "configure(): the outbox was chosen with the first event. Set the outbox before that, or call shutdown() first; "
    "until then events go where they did."
)


def _mode_for(config: Config, drainer: Drainer, sender: Sender) -> DrainMode:
    if not config.outbox.directory:
        return SenderDrains(drainer, sender)
    return CallerDrains(drainer, sender) if config.outbox.durability == "event" else OutboxThreadDrains(drainer, sender)
