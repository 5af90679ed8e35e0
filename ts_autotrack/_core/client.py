"""The library in one process: wires capture, delivery and the ends of the process."""

from __future__ import annotations

import atexit
import os
import sys
import time

from ts_autotrack._core import diagnostics, snapshot
from ts_autotrack._core.account import Account
from ts_autotrack._core.callables import know_futures
from ts_autotrack._core.capture import held
from ts_autotrack._core.capture.buffer import buffer as process_buffer
from ts_autotrack._core.capture.monitor import monitor
from ts_autotrack._core.capture.spans import tracing
from ts_autotrack._core.captures import Captures
from ts_autotrack._core.config import load, quiet
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.identity import baggage, defaults, outgoing
from ts_autotrack._core.locks import HeldWithin, owns
from ts_autotrack._core.notices import QUEUE_FULL, WARNINGS
from ts_autotrack._core.process.fork import ForkGuard, records_since_start
from ts_autotrack._core.process.shutdown import START_TIMEOUT, Shutdown
from ts_autotrack._core.process_id import process_id

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.capture.record import Record
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.delivery.backoff import Pacing
    from ts_autotrack._core.delivery.memory import MemoryWorker
    from ts_autotrack._core.delivery.worker import Worker
    from ts_autotrack.typing import RejectedItem, Stats


RETRY_INTERVAL = 5.0
"""Seconds between two attempts to import the delivery stack of a broken installation."""


class Client(Account):
    """One per process. It has an account from the start, and a worker from the first event on.

    Attributes:
        forks: Locks that a fork has to hold.
        pacing: Pauses of the sender; None for the defaults. Tests set shorter ones.
        shutdown: Waits of flush(), shutdown() and the ends of the process.
        captures: Captures of tests.
    """

    def __init__(self, buffer: Buffer) -> None:
        super().__init__(buffer)
        buffer.on_slow_path = self.accept
        process_id.on_change = self.start_over
        self.pacing: Pacing | None = None
        self.forks = ForkGuard()
        self.shutdown: Shutdown = Shutdown(self)
        self.captures = Captures(self)
        self.reset()

    def reset(self, *, announced: bool = True) -> None:
        """Start over with no events and no thread, as in a forked child: its parent sends the pending events.

        Args:
            announced: False in a child of a fork that Python's hooks did not see.
        """
        held.forget()
        self.buffer.reset()
        self.forks.reset(announced=announced)
        self.shutdown.reset()
        process_id.renew()
        self.config = self.worker = self.ended = None
        self.start_at = 0.0
        self._may_have_outbox = True  # until `flush` has read the settings
        self.counters = Counters()
        self.captures.reset()
        diagnostics.reset()
        snapshot.placeholders.take()

    def forget_arguments(self) -> None:
        """Forget the arguments of `configure()`, as a test needs."""
        self.arguments, self.forced = {}, {}

    @property
    def exit_timeout(self) -> float | None:
        """The setting EXIT_TIMEOUT; None before the settings are read."""
        return None if self.config is None else self.config.exit_timeout

    @property
    def pending(self) -> int:
        """Unsettled events."""
        worker = self.worker or self.ended
        return len(self.buffer.records) if worker is None else worker.pending

    @property
    def durable(self) -> int:
        """Unsettled events that survive the process."""
        return 0 if self.worker is None else self.worker.durable

    def accept(self, record: Record) -> None:
        """Take a record on the slow path: the first one, a full buffer, an idle worker, the end of the process."""
        buffer = self.buffer
        self.check_process()
        if buffer.close_reason is None:
            self._ensure_worker()
        elif buffer.exiting and buffer.close_reason == "shutdown" and not sys.is_finalizing():
            self._reconfigure({})  # a later exit hook than ours: start again for its event
            self.accept(record)
            self.shutdown.run_exit_hook()
            return
        if not buffer.take(record):
            if buffer.close_reason is None:
                diagnostics.warn_once("queue_full", QUEUE_FULL.format(buffer.limit, buffer.budget.limit))
        else:
            try:
                # A finalizer or signal handler inside setup must not take the drain lock, which comes first everywhere.
                worker = self.worker  # once: a capture may begin or end meanwhile, in another thread
                if worker is not None and not owns(self.forks.setup_lock):
                    worker.on_record()
                    if buffer.exiting:
                        self.shutdown.drain()
            except RecursionError:
                pass  # the record waits for the next one; an exception would count the event once more

    def configure(self, **settings: object) -> None:
        """See `ts_autotrack.configure`."""
        self.check_process()
        self.shutdown.go_on()
        self._reconfigure(settings)

    def _reconfigure(self, settings: dict[str, object]) -> None:
        with HeldWithin(self.forks.setup_lock, START_TIMEOUT):  # a thread at the first event may read older settings
            arguments = {**self.arguments, **{name: value for name, value in settings.items() if value is not None}}
            config = load({**arguments, **self.forced})
            self.arguments, self._may_have_outbox = arguments, True
            self._apply(config)
            worker = self.worker
            if worker is not None and worker.stopping:
                self._retire(worker)  # after shutdown(): another worker takes over
                if not self.buffer.exiting:
                    self.shutdown.restart()
            if config.off_reason is None:
                self._activate(config)

    def _activate(self, config: Config) -> None:
        """Import the delivery stack on this thread, and hand the settings to the worker."""
        try:
            from ts_autotrack._core import assembly
            from ts_autotrack._core.process.exits import prepare_sigterm

            assembly.import_stack(config)
        except ImportError as error:  # a broken installation; the first event tries again
            diagnostics.fault("importing the delivery stack", error)
            diagnostics.report()
            return
        if not self.forced:
            prepare_sigterm(self.shutdown)
        worker = self.worker
        if worker is not None and worker.in_memory is not (config.exporter == "memory"):
            worker.stop(0)
            self._retire(worker)
        if self.worker is not None:
            assembly.reconfigure(self.worker, config)
        elif self.pending or config.exporter == "memory":
            self._make_worker(config)
            if self.worker is not None:
                self.worker.wake()

    def worker_within(self, timeout: float) -> Worker | MemoryWorker | None:
        """Return the worker; if another thread is starting one, wait for it."""
        self.check_process()
        if self.worker is None:
            with HeldWithin(self.forks.setup_lock, timeout):
                pass
        if self.buffer.records and self.buffer.close_reason is None:
            self._ensure_worker()
        return self.worker

    def open_outbox(self) -> None:
        """Start the worker of a process with an outbox: ended processes may have left events there."""
        self.check_process()
        if self.worker is None and self.buffer.close_reason is None and self._may_have_outbox:
            config = self.config or load({**self.arguments, **self.forced}, warn=quiet)
            self._may_have_outbox = config.outbox.directory is not None and config.off_reason is None
            if self._may_have_outbox:
                self._ensure_worker()

    def release_forks(self) -> None:
        """Release locks that an interrupted fork holds on this thread."""
        self.forks.release()

    def stats(self) -> Stats:
        """See `ts_autotrack.stats`."""
        self.check_process()
        return self.buffer.stats(self.counters, self.pending, 0 if self.worker is None else self.worker.in_flight)

    def rejected(self) -> list[RejectedItem]:
        """See `ts_autotrack.rejected`."""
        return list(self.counters.rejects)

    def import_stack(self) -> None:
        """Import the delivery stack if the environment makes the library active.

        The first event reads the settings again: the application may change the environment until then, so bad values
        cause no warning here. pyproject.toml is not read here: parsing it would double the time of the import.
        """
        try:
            config = load({}, start="", warn=quiet)
            outgoing.apply(config.baggage)  # a service that has no event of its own may propagate, too
            tracing.note_features(on=config.span_events)
            if config.off_reason is None:
                from ts_autotrack._core import assembly
                from ts_autotrack._core.process.exits import prepare_sigterm

                assembly.import_stack(config)
                prepare_sigterm(self.shutdown)  # the events may all come from threads, which can set no handler
        except Exception as error:  # noqa: BLE001 - the barrier
            diagnostics.fault("importing the delivery stack", error)
            diagnostics.report()  # no worker will

    def before_fork(self) -> None:
        """Hold the locks of this process across a fork."""
        # A pool may replace workers that the same signal ended, and nobody would end the new ones.
        self.shutdown.wait_for_signal()
        self.forks.hold()

    def check_process(self) -> None:
        """Start over in a child of a fork that Python's hooks did not see; release locks that an interruption left."""
        if process_id.has_changed():
            self.start_over()
        self.forks.release_leaked()

    def start_over(self) -> None:
        """Start over in a forked child that captured records already: its own records stay, its parent's go."""
        own = records_since_start(self.buffer.records)
        self.reset(announced=False)
        for record in own:
            self.accept(record)

    def _retire(self, worker: Worker | MemoryWorker) -> None:
        """Keep a worker that ended, or is about to, as the predecessor of the next one."""
        if self.worker is worker:
            self.ended, self.worker = worker.as_predecessor(), None

    def _ensure_worker(self) -> None:
        """Have a worker, unless another thread is starting one."""
        worker = self.worker
        if worker is None or worker.ended:  # all threads may have ended, as by gevent's killall()
            self._start()

    def _start(self) -> None:
        """Read the settings and make the worker. One caller does so; the others leave their record and go on."""
        lock = self.forks.setup_lock
        if owns(lock) or time.monotonic() < self.start_at:
            return  # a signal handler or finalizer inside this function; or a start that failed just now
        with HeldWithin(lock, 0) as free:
            if not free:
                return
            try:
                worker = self.worker
                if worker is not None and worker.ended:
                    self._retire(worker)
                config = self.config or load({**self.arguments, **self.forced})
                if self.config is None and self.buffer.close_reason is None:  # otherwise configure() or shutdown()
                    self._apply(config)
                if self.buffer.close_reason is None and self.worker is None:
                    self._make_worker(self.config or config)
            except Exception as error:  # noqa: BLE001 - the barrier; the next event tries again
                if isinstance(error, ImportError):  # a broken installation: an attempt costs milliseconds
                    self.start_at = time.monotonic() + RETRY_INTERVAL
                diagnostics.fault("starting", error)
                diagnostics.report()  # no worker will

    def _make_worker(self, config: Config) -> None:
        from ts_autotrack._core import assembly
        from ts_autotrack._core.delivery.backoff import Pacing
        from ts_autotrack._core.process.exits import prepare_exits

        know_futures(again=True)  # of modules loaded since the decorations
        worker = assembly.build_worker(
            config, self.buffer, self.counters, self.forks, self.ended, self.pacing or Pacing()
        )
        if not self.forced:
            prepare_exits(self.shutdown)
        self.worker = worker  # last: a signal handler that tracks meanwhile must not wait for the worker

    def _apply(self, config: Config) -> None:
        buffer = self.buffer
        self.config = config
        buffer.limit = config.max_queue
        buffer.budget.limit = config.max_queue_bytes
        _use(config)
        if config.debug:
            diagnostics.log("debug", "%s", monitor)
        if config.off_reason is None:
            buffer.reopen()
            return
        buffer.close(config.off_reason)
        while self.worker is None and buffer.records:  # from other threads, while this one read the settings
            buffer.records.popleft()
            next(buffer.closed_drops)
        if config.off_reason in WARNINGS:
            diagnostics.warn_now(config.off_reason, WARNINGS[config.off_reason])

    def capture(self, config: Config) -> MemoryWorker:
        """Use the settings of a capture; make its worker and return it. The caller holds the setup lock."""
        self._apply(config)
        self._make_worker(config)
        return self.worker  # type: ignore[return-value]  # the exporter is "memory"

    def resume(self) -> None:
        """Go on with the settings and the worker from before a capture."""
        _use(self.config)
        if self.worker is not None and self.buffer.records:
            self.worker.wake()


def _use(config: Config | None) -> None:
    """Use the settings that belong to no object of the client; the defaults for None."""
    defaults.in_force = defaults.Defaults() if config is None else config.defaults
    outgoing.apply(baggage.BaggageSettings() if config is None else config.baggage)
    tracing.note_features(on=config is not None and config.span_events)
    diagnostics.set_debug(on=config is not None and config.debug)


client = Client(process_buffer)
client.import_stack()
atexit.register(client.shutdown.run_exit_hook)  # now: Python calls no hook that is registered by another exit hook
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(before=client.before_fork, after_in_parent=client.release_forks, after_in_child=client.reset)
