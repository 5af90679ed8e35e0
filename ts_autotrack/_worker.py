"""The thread: takes records from the buffer, has them encoded and exported, and ends in time."""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ts_autotrack import _faults
from ts_autotrack._buffer import BATCH_ITEMS
from ts_autotrack._identity import suppress

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._buffer import Buffer
    from ts_autotrack._config import Config
    from ts_autotrack._delivery import Exporter, Transport
    from ts_autotrack._events import Encoder, Item
    from ts_autotrack._stats import Counts

EAGER_SECONDS, EAGER_INTERVAL = 2.0, 0.05
"""A process's first two seconds flush every 50 ms: a developer who is watching sees the first events at once."""
IDLE_POLL = 1.0
"""Seconds. An idle worker is woken by the next event; it looks by itself for one whose capture was preempted between
reading `room` and appending."""
MOST_ENCODED = 2 * BATCH_ITEMS
"""Items that wait encoded; while the server is away the rest waits as records, which are smaller."""


class Worker:
    """One per process. `poke`, `flush` and `stop` are called from outside; all else runs on its own thread."""

    def __init__(  # noqa: PLR0913 - what it works on and with
        self,
        buffer: Buffer,
        backlog: deque[Item],
        counts: Counts,
        config: Config,
        connect: Callable[[Config], Transport],
        loading: _thread.LockType,
        after: Worker | None,
    ) -> None:
        self.config = config
        self._loading = loading
        self._after = after
        self._buffer = buffer
        self._backlog = backlog
        self._counts = counts
        self._connect = connect
        self._transport: tuple[Config, Transport] | None = None
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._starting = _thread.allocate_lock()
        self._claim = _thread.allocate_lock()
        self._born = time.monotonic()
        self._tickets: deque[_Ticket] = deque()
        self._stop_at: float | None = None
        self._ended = _Latch()
        self._thread = threading.Thread(target=self._run, name="ts_autotrack", daemon=True)

    def poke(self) -> bool:
        """Have the worker look now; start its thread with the first poke. Waits for no lock.

        Returns:
            Whether there is a thread.
        """
        if self._thread.ident is None:
            return self._start()
        _release(self._wake)
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was accepted before is settled; return False if `timeout` seconds were too short."""
        ticket = _Ticket()
        self._tickets.append(ticket)
        self.poke()
        if self._ended.wait(0) or threading.current_thread() is self._thread:  # a log handler of the app that flushes
            return not self._left()
        if ticket.done.wait(timeout):
            return ticket.settled
        with contextlib.suppress(ValueError):  # it was settled just now
            self._tickets.remove(ticket)
        return ticket.settled

    def stop(self, timeout: float) -> bool:
        """Export what is left for at most `timeout` seconds, then end the thread; return whether all was settled."""
        self._stop_at = time.monotonic() + timeout
        if self._thread.ident is None:
            self._run()  # no thread could be started: the caller does the work
        else:
            self.poke()
        if threading.current_thread() is not self._thread:
            self._ended.wait(timeout)
        return not self._left()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_at is not None

    def _left(self) -> int:
        return len(self._buffer.records) + len(self._backlog)

    def _start(self) -> bool:
        if not self._starting.acquire(blocking=False):
            return True  # another caller is at it, and the record of this one is in the buffer already
        try:
            self._thread.start()
        except RuntimeError as error:
            # A limit of the system; or interpreter shutdown, from Python 3.12, when the end is near anyhow.
            if "shutdown" not in str(error):  # pragma: no branch
                _faults.warn_once(
                    "thread", f"no thread can be started ({error}); events are sent when the process ends"
                )
            return False
        finally:
            self._starting.release()
        return True

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):  # pragma: no cover - a race
            return  # `stop` found the thread about to start, or the other way round: one of them does the work
        if self._after is not None:  # a worker that was told to stop may still hold a batch
            self._after._ended.wait(-1)  # noqa: SLF001
            self._after = None
        with suppress():  # should our own HTTP client or log handlers be tracked, that ends here
            self._deliver()

    def _deliver(self) -> None:
        try:
            encoder, exporter = self._load()
            while not self._finished():
                try:
                    self._work(encoder, exporter)
                except Exception as error:  # noqa: BLE001 - the thread outlives every fault but its own end
                    exporter.not_before = time.monotonic() + IDLE_POLL
                    _faults.fault("delivering events", error)
                _faults.report()
                if not self._finished():
                    self._rest(exporter)
        finally:
            self._end()

    def _load(self) -> tuple[Encoder, Exporter]:
        """Import what delivery needs, off the caller's path, and all at once: a fork waits while this is going on."""
        with self._loading:
            from ts_autotrack._delivery import Exporter  # noqa: PLC0415
            from ts_autotrack._events import Encoder  # noqa: PLC0415

            exporter = Exporter(self._backlog, self._counts)
            try:
                self._current_transport(exporter)
            except Exception as error:  # noqa: BLE001 - such as a proxy setting that makes no sense; tried again
                _faults.fault("opening the exporter", error)
            return Encoder(self._counts), exporter

    def _finished(self) -> bool:
        return self._stop_at is not None and (not self._left() or time.monotonic() >= self._stop_at)

    def _work(self, encoder: Encoder, exporter: Exporter) -> None:
        """Encode and export until the buffer is empty, or what is left is neither due nor a full batch."""
        self._wake.acquire(blocking=False)  # this round answers every poke so far
        while True:
            transport = self._current_transport(exporter)
            self._admit_tickets(exporter)
            self._backlog.extend(encoder.items(self._buffer.take(MOST_ENCODED - len(self._backlog))))
            exporter.export(transport, self.config.request_timeout)
            _faults.report()  # so that all has been said when `flush` returns
            self._settle_tickets()
            waiting = len(self._buffer.records)
            if not waiting or exporter.waiting or self._finished():
                return
            if waiting < BATCH_ITEMS and not self._tickets and self._stop_at is None:
                return

    def _current_transport(self, exporter: Exporter) -> Transport:
        config = self.config
        if self._transport is None or self._transport[0] is not config:
            if self._transport is not None:
                self._transport[1].close()
            self._transport = (config, self._connect(config))
            exporter.forgive()
        return self._transport[1]

    def _rest(self, exporter: Exporter) -> None:
        """Sleep until a flush interval is over or the next attempt is due; with nothing to do, until the next event."""
        now = time.monotonic()
        interval = self.config.flush_interval
        if now - self._born < EAGER_SECONDS:
            interval = min(interval, EAGER_INTERVAL)
        if self._tickets or self._stop_at is not None:
            exporter.hurry()
            interval = 0.0
        if exporter.waiting:
            interval = exporter.not_before - now
        if self._stop_at is not None:
            interval = min(interval, self._stop_at - now)
        self._buffer.open()
        self._sleep(interval)
        while not (self._left() or self._tickets or self._stop_at is not None):
            self._buffer.idle()
            if not self._left():  # pragma: no branch - an event may just have come
                self._sleep(IDLE_POLL)
        self._buffer.open()

    def _sleep(self, seconds: float) -> None:
        self._wake.acquire(timeout=max(0.0, seconds))

    def _admit_tickets(self, exporter: Exporter) -> None:
        exporter.deadline = self._stop_at
        for ticket in list(self._tickets):
            if ticket.last is None:
                ticket.last = self._counts.taken + len(self._buffer.records)

    def _settle_tickets(self) -> None:
        """Tell every flush whose events are all settled."""
        settled = self._backlog[0][2] - 1 if self._backlog else self._counts.taken
        for ticket in list(self._tickets):
            if ticket.last is not None and ticket.last <= settled:
                ticket.settled = True
                ticket.done.open()
                with contextlib.suppress(ValueError):  # its flush has just given up
                    self._tickets.remove(ticket)

    def _end(self) -> None:
        self._ended.open()
        while self._tickets:
            self._tickets.popleft().done.open()
        if self._transport is not None:  # pragma: no branch - stopped before its first round
            self._transport[1].close()
        _faults.report()


def _release(lock: _thread.LockType) -> None:
    with contextlib.suppress(RuntimeError):  # somebody else has just released it
        lock.release()


class _Latch:
    """Opens once. Unlike an Event it holds no lock that a signal handler in the same thread could wait for."""

    __slots__ = ("_closed",)

    def __init__(self) -> None:
        self._closed = _thread.allocate_lock()
        self._closed.acquire()

    def open(self) -> None:
        """Let everybody through, now and later."""
        _release(self._closed)

    def wait(self, timeout: float) -> bool:
        """Wait until it is open, for `timeout` seconds at most, or without end if it is -1; return whether it is."""
        if not self._closed.acquire(timeout=timeout):
            return False
        self.open()
        return True


class _Ticket:
    """Somebody waits in `flush`.

    Attributes:
        last: The number of the last record that the flush is about; None until the worker has seen the ticket.
        settled: Whether everything up to there has been delivered, rejected or dropped.
    """

    __slots__ = ("done", "last", "settled")

    def __init__(self) -> None:
        self.last: int | None = None
        self.settled = False
        self.done = _Latch()
