"""The threads: one has events delivered; with an outbox another one has them on disk while that waits for answers."""

from __future__ import annotations

import _thread
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from ts_autotrack._core import diagnostics
from ts_autotrack._core.contract import MAX_ITEMS
from ts_autotrack._core.delivery.flush import Farewell, FlushRequests
from ts_autotrack._core.delivery.opening import open_transport
from ts_autotrack._core.delivery.thread import BackgroundThread, OneShotEvent
from ts_autotrack._core.identity.user_context import suppress

if TYPE_CHECKING:
    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.drainer import Keeping
    from ts_autotrack._core.delivery.exporter import Exporter, Transport
    from ts_autotrack._core.delivery.flush import FlushRequest
    from ts_autotrack._core.delivery.intake import Intake
    from ts_autotrack._core.delivery.queue import Item

EAGER_SECONDS, EAGER_INTERVAL = 2.0, 0.05
"""A process's first two seconds flush every 50 ms: a developer who is watching sees the first events at once."""
KEEP_INTERVAL = 0.02
"""Seconds between two commits to the outbox, so that an event is on disk 50 ms after the call at the latest."""
IDLE_POLL = 1.0
"""Seconds. An idle thread is woken by the next event; it looks by itself for one whose capture was preempted between
reading `room` and appending, and for what the outbox has to do now and then."""
NEVER = sys.maxsize


class Worker:
    """One per process. `notify`, `poke`, `flush` and `stop` are called from outside; the rest runs on its threads.

    Attributes:
        config: The settings in force; the next round goes by those that are set here.
        farewell: How a signal's handler waits for what is left.
        left: What `stop` could not settle and no outbox holds; for the worker after this one.
        forked_by_thread: Whether the process was forked by a thread that was not its parent's main one. Such a process
            ends with the last of its threads, and no exit hook runs: this one must not be the last.
    """

    def __init__(  # noqa: PLR0913 - what it works on and with
        self,
        buffer: Buffer,
        counts: Counters,
        config: Config,
        keeping: Keeping,
        loading: _thread.RLock,
        after: Worker | None,
    ) -> None:
        self.config = config
        self.left: list[Item] = []
        self.forked_by_thread = False
        self._each = bool(config.outbox) and config.durability == "event"
        self._loading = loading
        self._after = after
        self._buffer = buffer
        self._counts = counts
        self._keeping = keeping
        self._transport: tuple[Config, Transport] | None = None
        self._claim = _thread.allocate_lock()
        self._born = time.monotonic()
        self._tickets = FlushRequests()
        self.farewell = Farewell(self, self._tickets)
        self._exporter: Exporter | None = None
        self._rests = False
        self._stop_at: float | None = None
        self._ended = OneShotEvent()
        self._wake_at = 1  # the number of the record with which whoever keeps it wakes the sender
        self._sender = BackgroundThread(self._run, "ts_autotrack")
        self._keeper = BackgroundThread(self._keep, "ts_autotrack outbox") if config.outbox and not self._each else None

    def notify(self) -> None:
        """Take notice of a record that was appended to a buffer which did not let captures append by themselves."""
        if self._each:
            self._keep_now()
        elif (self._keeper or self._sender).poke():
            self._keeping.open_buffer()
        elif self._keeper is not None:
            self._keep_now()  # no thread can be started: the caller does the work

    def keep(self, timeout: float) -> None:
        """With an outbox: have all that was tracked so far on disk, if that can begin within so many seconds."""
        if not self._shared and self._keeping.run_within(timeout):
            self._nudge()

    def poke(self) -> bool:
        """Have the sender look now; return whether there is a thread."""
        return self._sender.poke()

    def flush(self, timeout: float) -> bool:
        """Wait until all that was accepted before is settled; return False if `timeout` seconds were too short."""
        ticket = self._tickets.take()
        settled = self.wait_for(ticket, timeout)
        self._tickets.give_back(ticket)
        return settled

    def wait_for(self, ticket: FlushRequest, timeout: float) -> bool:
        """Wait until what the ticket is for is settled; return False if `timeout` seconds were too short."""
        if self._keeping.has_turn:
            timeout = 0.0  # a signal handler inside of our own turn: nothing can go on while it waits
        # No thread can be started; or it has ended; or it is this one: a log handler of the application that flushes.
        if not self.poke() or self.ended or self._sender.current:
            return not self.pending
        ticket.done.wait(timeout)
        return ticket.settled

    def stop(self, timeout: float) -> bool:
        """Export what is left for at most `timeout` seconds, then end; return whether all was settled."""
        if self._keeping.has_turn:
            timeout = 0.0  # as in `flush`
        self._stop_at = time.monotonic() + timeout
        if self._keeper is not None and self._keeper.started:
            self._keeper.poke()
        if not self._sender.started:
            self._run()  # no thread could be started: the caller does the work
        else:
            self.poke()
        if not self._sender.current:
            self._ended.wait(timeout)
        return not self.pending

    @property
    def may_be_stuck(self) -> bool:
        """Whether the sender neither rests nor waits for an answer: it may want a lock that this thread holds."""
        waits = self._rests or (self._exporter is not None and self._exporter.sending)
        return self._keeping.has_turn or not waits

    @property
    def ended(self) -> bool:
        """Whether nothing is going to be delivered any more."""
        return self._ended.is_open

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_at is not None

    @property
    def pending(self) -> int:
        """Events that are not settled, as far as is known: those of ended processes included."""
        after = self._after
        return len(self._buffer.records) + self._unsettled + (after._unsettled if after is not None else 0)  # noqa: SLF001

    @property
    def _unsettled(self) -> int:
        return self._keeping.pending + len(self.left)

    @property
    def durable(self) -> int:
        """How many of them survive the process."""
        after = self._after.durable if self._after is not None else 0
        return after + self._keeping.durable

    @property
    def _shared(self) -> bool:
        """Whether captures append by themselves and wake the sender: there is no keeper, nor is each its own."""
        return self._keeper is None and not self._each

    def _keep_now(self) -> None:
        if self._keeping.run():
            self._nudge()

    def _nudge(self) -> None:
        if self._counts.taken >= self._wake_at or (self._each and self._buffer.records):
            self._wake_at = NEVER
            self._sender.poke()

    # On the keeper.

    def _keep(self) -> None:
        with suppress():
            while (keeper := self._keeper) is not None and self._stop_at is None:
                self._keep_now()
                self._keeping.open_buffer()
                keeper.sleep(KEEP_INTERVAL if self._keeping.takes else IDLE_POLL)
                if not self._buffer.records and self._stop_at is None:
                    self._buffer.require_slow_path()
                    if not self._buffer.records:  # pragma: no branch - an event may just have come
                        keeper.sleep(IDLE_POLL)

    # On the sender.

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):  # pragma: no cover - a race
            return  # `stop` found the thread about to start, or the other way round: one of them does the work
        with suppress():  # should our own HTTP client or log handlers be tracked, that ends here
            try:
                if self._after is not None:  # a worker that was told to stop may still hold a batch
                    self._after._ended.wait(-1)  # noqa: SLF001
                self._deliver()
            finally:
                self._end()

    def _deliver(self) -> None:
        loaded = self._load()
        while loaded is None and self._stop_at is None:
            self._sender.sleep(IDLE_POLL)
            loaded = self._load()
        if loaded is None:
            return
        intake, exporter = loaded
        self._exporter = exporter
        while not self._finished(exporter):
            try:
                self._work(intake, exporter)
            except Exception as error:  # noqa: BLE001 - the thread outlives every fault but its own end
                exporter.not_before = time.monotonic() + IDLE_POLL
                diagnostics.fault("delivering events", error)
            diagnostics.report()
            if not self._finished(exporter):
                self._rest(intake, exporter)

    def _load(self) -> tuple[Intake, Exporter] | None:
        try:
            return self._load_all()
        except Exception as error:  # noqa: BLE001 - an interpreter that lacks something; what is kept is kept
            diagnostics.fault("starting to deliver", error)
            diagnostics.report()
            return None

    def _load_all(self) -> tuple[Intake, Exporter]:
        """Import what delivery needs, off the caller's path, and all at once: a fork waits while this is going on."""
        intake = self._keeping.load()
        with self._loading:
            from ts_autotrack._core.delivery.exporter import Exporter  # noqa: PLC0415

            exporter = Exporter(intake.backlog, self._counts)
            try:
                self._current_transport(exporter)
            except Exception as error:  # noqa: BLE001 - such as a proxy setting that makes no sense; tried again
                diagnostics.fault("opening the exporter", error)
        if self._after is not None:
            with self._keeping.turn:
                left, self._after.left = self._after.left, []
                intake.backlog.put(left)
                self._counts.handed_over += self._after.durable  # for this process or another one to adopt
            self._after = None
        return intake, exporter

    def _finished(self, exporter: Exporter) -> bool:
        if self._stop_at is None:
            return False
        exporter.hurry()
        return not self.pending or max(time.monotonic(), exporter.not_before) >= self._stop_at

    def _work(self, intake: Intake, exporter: Exporter) -> None:
        """Encode and export until nothing is left, or what is left is neither due nor a full batch."""
        self._wake_at = NEVER
        self._sender.answer()  # this round answers every poke so far
        while True:
            adopted = self._counts.adopted
            transport = self._current_transport(exporter)
            exporter.deadline = self._stop_at
            with self._keeping.turn:
                self._tickets.admit(self._counts.taken + len(self._buffer.records))
            with self._keeping.turn:
                intake.run()
            if self._shared:
                self._keeping.open_buffer()
            intake.backlog.maintain()
            exporter.export(transport, self.config.request_timeout, partial(self._settle_tickets, intake))
            self._settle_tickets(intake)
            left = self.pending
            if not left or exporter.waiting or self._finished(exporter):
                return
            if self._counts.adopted > adopted:
                continue  # it has waited long enough
            if left < MAX_ITEMS and not self._tickets and self._stop_at is None:
                return

    def _current_transport(self, exporter: Exporter) -> Transport:
        config = self.config
        if self._transport is None or self._transport[0] is not config:
            if self._transport is not None:
                self._transport[1].close()
            self._transport = (config, open_transport(config))
            exporter.forgive()
        return self._transport[1]

    def _rest(self, intake: Intake, exporter: Exporter) -> None:
        """Sleep until a flush interval is over or the next attempt is due; with nothing to do, until the next event."""
        until = time.monotonic() + self._interval(exporter)
        if self._shared:
            self._keeping.open_buffer()
        batch = self._counts.taken + max(1, MAX_ITEMS - self._keeping.pending)
        self._wake_at = NEVER if exporter.waiting else batch
        adopted = self._counts.adopted
        while not self._sleep(until) and time.monotonic() < until and self._counts.adopted == adopted:
            intake.backlog.maintain()
        while not (self.pending or self._tickets or self._stop_at is not None):
            if self._shared:
                self._buffer.require_slow_path()
            self._wake_at = self._counts.taken + 1
            if not self.pending:  # pragma: no branch - an event may just have come
                self._sleep(NEVER)
            intake.backlog.maintain()
        if self._shared:
            self._keeping.open_buffer()

    def _sleep(self, until: float) -> bool:
        """Sleep for a while, until then at the most; return whether somebody has woken this thread."""
        self._rests = True
        woken = self._sender.sleep(min(until - time.monotonic(), IDLE_POLL))
        self._rests = False
        if self.forked_by_thread and self._stop_at is None and not threading.main_thread().is_alive():
            self._stop_at = time.monotonic() + self.config.exit_timeout
            return True
        return woken

    def _interval(self, exporter: Exporter) -> float:
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
        return interval

    def _settle_tickets(self, intake: Intake) -> None:
        """Tell every flush whose events are all settled."""
        if not self._tickets:
            return
        diagnostics.report()  # so that all has been said when `flush` returns
        with self._keeping.turn:
            oldest = intake.backlog.oldest_sequence()
            settled = self._counts.taken if oldest is None else oldest - 1
        self._tickets.settle(settled)

    def _end(self) -> None:
        self.left = self._keeping.close()
        self._ended.open()
        self._buffer.require_slow_path()  # should this not be the end: the next record finds out
        self._tickets.close()
        if self._transport is not None:  # pragma: no branch - stopped before its first round
            self._transport[1].close()
        diagnostics.report()
