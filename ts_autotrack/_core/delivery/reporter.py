"""The reporter: when the report of this process goes to an inspector, and into the directory of the outbox.

It works on the sender's thread while nothing is due. Only an inspector on this machine gets reports: the header of its
answers tells. A process whose events all lack a user sends no request that could have such an answer, so it asks an
endpoint on this machine with an empty GET, but not under pytest: a test may count the requests that its server gets.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol, cast

from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture import mechanisms
from ts_autotrack._core.report import encode, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.destination import Destination
    from ts_autotrack.typing import Response, Stats

INTERVAL = 1.0
"""Seconds between two reports at least."""
COST_FACTOR = 1_000
"""Seconds between two reports for each second of CPU that the last one took: 1 ms of CPU a second at most."""
SIGN_OF_LIFE = 30.0
"""Seconds after which an unchanged report is sent again."""
FILE_INTERVAL = 5.0
"""Seconds between two looks at the file, and at the files of ended processes."""
PAUSE = 5.0
"""Seconds without a report after a failed one."""
TIMEOUT = 0.5
"""Seconds for one report, or for all requests of the last one. An inspector on this machine answers in milliseconds."""


class ReportFile(Protocol):
    """The report of this process in the directory of an outbox."""

    @property
    def exists(self) -> bool:
        """True if the file is there."""
        ...

    def write(self, report: bytes) -> None:
        """Write or replace the file; leave it out if the disk does not take it."""
        ...

    def remove_stale(self) -> None:
        """Delete the files of ended processes."""
        ...

    def remove(self) -> None:
        """Delete the file."""
        ...


class Inspectable(Protocol):
    """A transport whose server may be an inspector.

    Attributes:
        inspector: True if the last answer came from an inspector on this machine; None before the first answer.
    """

    inspector: bool | None

    def ask(self, timeout: float) -> None:
        """Find out whether the server is an inspector, without sending anything of this process."""
        ...

    def report(self, body: bytes, timeout: float) -> Response:
        """Send the report of this process."""
        ...


class Reporter:
    """Reports at most once a second, if something has changed. Belongs to the sender's thread."""

    def __init__(
        self, destination: Destination, counters: Counters, stats: Callable[[], Stats], file: ReportFile | None
    ) -> None:
        self._destination = destination
        self._counters = counters
        self._stats = stats
        self._file = file
        self._next_at = self._write_at = self._repeat_at = 0.0
        self._sent: object = None  # the state in the last report
        self._written: object = None
        self._lock = threading.Lock()
        self._interruptible = False  # a request of `run` is in progress
        self._failed = False  # the last request brought no answer

    def run(self) -> None:
        """Report if a report is due. Never raises."""
        now = time.monotonic()
        if now < self._next_at:
            return
        began = time.thread_time()
        self._next_at = now + INTERVAL
        try:
            self._write(now)
            self._allow_interrupt(allowed=True)
            try:
                self._send(now + TIMEOUT)
            finally:
                self._allow_interrupt(allowed=False)
        except Exception as error:  # noqa: BLE001 - the barrier
            diagnostics.fault("reporting", error)
        self._next_at = max(self._next_at, now + COST_FACTOR * (time.thread_time() - began))

    def finish(self, deadline: float | None) -> None:
        """Send the last report before `deadline`, and remove the file. Never raises.

        An inspector that did not answer gets none: the end of the process would wait for it a second time.
        """
        now = time.monotonic()
        try:
            if self._file is not None:
                self._file.remove()
                self._file.remove_stale()
            if not self._failed:
                self._send(now + TIMEOUT if deadline is None else min(deadline, now + TIMEOUT), ended=True)
        except Exception as error:  # noqa: BLE001 - the barrier
            diagnostics.fault("reporting", error)

    def interrupt(self) -> None:
        """End a request of `run` in progress, from any thread: events wait for the sender's thread."""
        # A signal handler may interrupt this method on the same thread, so it does not wait for the lock.
        if self._lock.acquire(blocking=False):
            try:
                if self._interruptible:
                    self._destination.cancel()
            finally:
                self._lock.release()

    def _allow_interrupt(self, *, allowed: bool) -> None:
        with self._lock:
            self._interruptible = allowed

    def _write(self, now: float) -> None:
        """Write the file if events were dropped since the last time, or if somebody has deleted it."""
        if self._file is None or now < self._write_at:
            return
        self._write_at = now + FILE_INTERVAL
        self._file.remove_stale()
        stats = self._stats()
        if not stats.dropped or (stats.dropped == self._written and self._file.exists):
            return
        self._file.write(encode(report(stats, self._destination.config, self._counters.unattributed.copy())))
        self._written = stats.dropped

    def _send(self, deadline: float, *, ended: bool = False) -> None:
        """Send a report to an inspector, unless a captured test, which sends nothing, is in progress."""
        lock, transport = self._destination.request_lock, self._destination.opened
        if getattr(transport, "inspector", False) is False or time.monotonic() >= deadline:
            return
        if lock.acquire(blocking=False):
            try:
                self._send_to(cast("Inspectable", transport), deadline, ended=ended)
            finally:
                lock.release()

    def _send_to(self, transport: Inspectable, deadline: float, *, ended: bool) -> None:
        stats, config, now = self._stats(), self._destination.config, time.monotonic()
        if transport.inspector is None:
            if stats.pending or not stats.dropped:
                return  # the answer to the first events tells
            if not config.in_tests:
                return
            transport.ask(deadline - now)
            self._failed = transport.inspector is None
        state = stats, config, list(diagnostics.recent), len(mechanisms.known())
        if not transport.inspector:
            self._next_at = now + PAUSE
        elif ended or state != self._sent or now >= self._repeat_at:
            body = encode(report(stats, config, self._counters.unattributed.copy(), ended=ended))
            self._failed = not transport.report(body, deadline - time.monotonic()).status
            if not self._failed:
                self._sent, self._repeat_at = state, now + SIGN_OF_LIFE
            else:
                self._next_at = now + PAUSE
