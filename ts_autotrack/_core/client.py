"""Wires buffer, worker and exporter together: `client` is what this process has of them."""

from __future__ import annotations

import atexit
import os
import sys
import time
from _thread import RLock, get_ident

from ts_autotrack._core import diagnostics, snapshot
from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.identity import baggage

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from ts_autotrack._core.capture.record import Record
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.delivery.worker import Worker
    from ts_autotrack.typing import RejectedItem, Stats


LOADING_TIMEOUT = 5.0
"""Seconds that a fork, or the end of the process, waits for a thread of ours that is importing or writing to the
outbox."""
KEEP_TIMEOUT = 1.0
"""Seconds that the end of the process waits for that, whatever EXIT_TIMEOUT says, to have the last events on disk."""

GLANCE = 0.1
"""Seconds that a signal's handler waits for another thread that is at the first event: it may want a lock held here."""


class Client:
    """The library's state in one process: nothing until the first event, then a buffer, a worker and an account."""

    def __init__(self) -> None:
        self._arguments: dict[str, object] = {}
        self._thread_forks = False
        buffer.on_slow_path = self.admit
        self.reset()

    def reset(self) -> None:
        """Start over with no events and no thread, as in a forked child: what is pending is its parent's to send."""
        buffer.reset()
        self._loading = RLock()
        self._turn = RLock()
        self._fork_holds: dict[int, list[RLock]] = {}  # by thread: two may fork at once
        self._dying = False
        self._end_at: float | None = None
        self._told: tuple[int, str] | None = None
        self._forked_by_thread, self._thread_forks = self._thread_forks, False
        self._config: Config | None = None
        self._worker: Worker | None = None
        self._ended: Worker | None = None
        self._counts = Counters()
        diagnostics.forget()
        snapshot.placeholders.reset()

    def admit(self, record: Record) -> None:
        """Take a record when a capture may not append by itself: the first one, a full buffer, an idle worker."""
        if buffer.close_reason is None:
            self._ensure_worker()
        elif buffer.exiting and buffer.close_reason == "shutdown" and not sys.is_finalizing():
            self.configure()  # an exit hook that runs after ours: all of it once more, for its event
            self.admit(record)
            self.end()
            return
        if buffer.close_reason is not None:
            next(buffer.closed_drops)
        elif buffer.full:
            next(buffer.drops["queue_full"])
            diagnostics.warn_once("queue_full", _QUEUE_FULL.format(buffer.limit, buffer.budget.limit))
        else:
            buffer.records.append(record)
            if self._worker is not None:
                self._worker.notify()
                if buffer.exiting:
                    self._drain()

    def configure(self, **settings: object) -> None:
        """See `ts_autotrack.configure`."""
        from ts_autotrack._core.config import load  # noqa: PLC0415 - as in _prepare

        arguments = {**self._arguments, **{k: v for k, v in settings.items() if v is not None}}
        config = load(arguments)
        self._arguments = arguments
        self._apply(config)
        if config.off_reason is None:
            from ts_autotrack._core.process.exits import on_sigterm  # noqa: PLC0415 - as above

            on_sigterm(self._drain_to_die)  # the first event may come from a thread, which can arrange for nothing
        if self._worker is not None and self._worker.stopping:
            self._ended, self._worker = self._worker, None  # after shutdown(): another one takes over
            if not buffer.exiting:
                self._end_at = None  # that was not the end
        if self._worker is not None and config.off_reason is None:
            if _outbox_of(config) != _outbox_of(self._worker.config):
                diagnostics.warn_now(("setting", "outbox"), _OUTBOX_SET_LATE)
            self._worker.config = config
            self._worker.poke()
        elif self._left() and config.off_reason is None:
            self._prepare()
            if self._worker is not None:  # pragma: no branch - unless another thread is preparing it
                self._worker.poke()

    def flush(self, timeout: float) -> bool:
        """See `ts_autotrack.flush`."""
        timeout = _bounded(timeout)
        worker = self._settled_worker(timeout)
        settled = not self._left() if worker is None else worker.flush(timeout)
        return settled or self._tell_left(f"flush({timeout:g})", _QUEUED)

    def shutdown(self, timeout: float | None = None) -> bool:
        """See `ts_autotrack.shutdown`."""
        worker = self._settled_worker(LOADING_TIMEOUT if timeout is None else _bounded(timeout))
        buffer.close(buffer.close_reason or "shutdown")
        seconds = self._time_left() if timeout is None else _bounded(timeout)
        if worker is not None:
            worker.keep(max(seconds, KEEP_TIMEOUT))
        settled = not self._left() if worker is None else worker.stop(seconds)
        if settled:
            self._end_at = None
        return settled or self._tell_left("shutdown", _LOST)

    def end(self) -> None:
        """Run as an exit hook. Others may run after it: what they track is delivered before their call returns."""
        if buffer.close_reason != "shutdown":  # else the application has called `shutdown`
            at_end = buffer.close_reason is None
            self.shutdown()
            if at_end:
                buffer.begin_exit()
        if self._dying:
            # The signal is sent again, and is what ends the process.
            time.sleep(self._time_left() + KEEP_TIMEOUT)

    def _time_left(self) -> float:
        """Return the seconds that are left of EXIT_TIMEOUT, however many times the end of the process waits.

        It does for each event of a late exit hook, and in uvicorn, which sends itself the signal again that it has
        handled. Once all is delivered it may take as long again.
        """
        now = time.monotonic()
        if self._end_at is None or now > self._end_at + LOADING_TIMEOUT:  # that was not the end
            self._end_at = now + (LOADING_TIMEOUT if self._config is None else self._config.exit_timeout)
        return max(0.0, self._end_at - now)

    def _settled_worker(self, timeout: float) -> Worker | None:
        """Return the worker; if another thread's first event is just preparing it, wait for that."""
        if self._worker is None and self._loading.acquire(timeout=min(timeout, LOADING_TIMEOUT)):
            self._loading.release()
        if buffer.records and buffer.close_reason is None:
            self._ensure_worker()
        return self._worker

    def _left(self) -> int:
        worker = self._worker or self._ended
        return len(buffer.records) if worker is None else worker.pending

    def _drain(self) -> None:
        """Deliver what is left, within the setting EXIT_TIMEOUT."""
        worker = self._settled_worker(LOADING_TIMEOUT)
        if worker is not None:
            worker.keep(max(self._time_left(), KEEP_TIMEOUT))
        if worker is not None and not worker.poke():
            self.shutdown()  # no thread can be started: this one does the work
        else:
            self._conclude(worker.flush(self._time_left()) if worker is not None else not self._left(), _LOST)

    def _drain_to_die(self) -> bool:
        """`_drain` in a process that a signal ends then, called by its handler.

        Returns False if what the signal has interrupted should go on for a moment: delivery may want a lock that it
        holds, or it is our own work. What it tracks then is delivered, too.
        """
        self.after_fork()  # it may have been a fork
        self._dying = os.getpid() != 1  # the first process of a container survives
        worker = self._settled_worker(GLANCE)
        if worker is None:
            if buffer.records and self._time_left():
                return False  # this thread is at the first event
            self._conclude(not self._left(), _LOST)
            return True
        if not worker.poke():
            self.shutdown()  # no thread can be started: this one does the work
            return True
        settled = worker.farewell.wait(self._time_left)
        if settled is None:
            return False
        if not settled:
            worker.keep(KEEP_TIMEOUT)
        self._conclude(settled, _LOST if self._dying else _QUEUED)
        if not self._dying:
            self._end_at = None  # the next signal has its own time
        return True

    def _conclude(self, settled: bool, fate: str) -> None:  # noqa: FBT001 - what a flush returns
        if settled:
            self._end_at = None
        else:
            self._tell_left("the end of the process", fate)

    def _drain_last(self) -> None:
        """Deliver what is left, and from now on each event before its call returns: the process may end at any time."""
        self._drain()
        buffer.begin_exit()

    def stats(self) -> Stats:
        """See `ts_autotrack.stats`."""
        from ts_autotrack.typing import Stats  # noqa: PLC0415 - typing costs as much to import as all of us

        counts = self._counts
        dropped = {reason: counter.read() for reason, counter in buffer.drops.items()}
        accepted = counts.taken + counts.adopted + len(buffer.records) + sum(dropped.values())
        for reason, events in counts.dropped.copy().items():
            dropped[reason] = dropped.get(reason, 0) + events
        return Stats(
            accepted=accepted,
            delivered=counts.delivered,
            pending=self._left(),
            rejected=counts.rejected,
            dropped={reason: events for reason, events in dropped.items() if events},
            replaced=snapshot.placeholders.read(),
            adopted=counts.adopted,
            handed_over=counts.handed_over,
        )

    def rejected(self) -> list[RejectedItem]:
        """See `ts_autotrack.rejected`."""
        return list(self._counts.rejects)

    def _ensure_worker(self) -> None:
        """Have a worker, unless another thread is about to make it."""
        if self._worker is not None and self._worker.ended:  # by something that no thread survives, such as killall()
            self._ended, self._worker = self._worker, None
        if self._worker is None:
            self._prepare()

    def _prepare(self) -> None:
        """Read the settings and make the worker. One caller does it; the others leave their record and go on."""
        if self._loading._is_owned() or not self._loading.acquire(blocking=False):  # type: ignore[attr-defined]  # noqa: SLF001
            return
        try:
            # Loaded with the first event: a program that imports us but tracks nothing does not pay for it.
            from ts_autotrack._core.config import load  # noqa: PLC0415
            from ts_autotrack._core.delivery.drainer import Keeping  # noqa: PLC0415
            from ts_autotrack._core.delivery.worker import Worker  # noqa: PLC0415
            from ts_autotrack._core.process.exits import arrange  # noqa: PLC0415

            config = self._config or load(self._arguments)
            if buffer.close_reason is None:  # else shut down while this was loading
                self._apply(config)
            if buffer.close_reason is None and self._worker is None:
                keeping = Keeping(buffer, self._counts, config, self._loading, self._turn)
                worker = Worker(buffer, self._counts, config, keeping, self._loading, self._ended)
                worker.forked_by_thread = self._forked_by_thread
                arrange(self._drain, self._drain_last, self._drain_to_die)
                self._worker = worker  # only now: a signal handler that tracks meanwhile must not wait for it
        except Exception as error:  # noqa: BLE001 - the barrier; the next event tries again
            diagnostics.fault("starting", error)
        finally:
            self._loading.release()

    def before_fork(self) -> None:
        """Wait for all of our threads to be where a fork does no harm, and hold them there.

        A child forked while one of them was importing, or used SQLite, would be left with half a module, or with a lock
        that nobody releases, for good.
        """
        if self._dying:
            # A pool that replaces workers which the same signal has ended: nobody would end those.
            time.sleep(self._time_left() + KEEP_TIMEOUT)
        threading = sys.modules.get("threading")
        self._thread_forks = threading is not None and get_ident() != threading.main_thread().ident
        holds = self._fork_holds.setdefault(get_ident(), [])
        holds += [lock for lock in (self._turn, self._loading) if lock.acquire(timeout=LOADING_TIMEOUT)]

    def after_fork(self) -> None:
        """Let them go on."""
        for lock in self._fork_holds.pop(get_ident(), ()):
            lock.release()

    def _apply(self, config: Config) -> None:
        self._config = config
        buffer.limit = config.max_queue
        buffer.budget.limit = config.max_queue_bytes
        baggage.enabled = config.baggage
        diagnostics.debug(config.debug)
        if config.off_reason is None:
            buffer.close_reason = None
            buffer.require_slow_path()
            return
        buffer.close(config.off_reason)
        while self._worker is None and buffer.records:  # left by other threads while this one read the settings
            buffer.records.popleft()
            next(buffer.closed_drops)
        if config.off_reason == "no_api_key":
            diagnostics.warn_now("no_api_key", _NO_KEY)

    def _tell_left(self, call: str, fate: str) -> bool:
        left, durable = self._left(), self._worker.durable if self._worker is not None else 0
        if durable:
            diagnostics.say("info", "%s: %d events were not delivered in time; the outbox keeps them", call, durable)
        if left > durable and (left - durable, fate) != self._told:
            self._told = left - durable, fate
            diagnostics.say("warning", "%s: %d events were not delivered in time; %s", call, left - durable, fate)
        return not left


def _outbox_of(config: Config) -> tuple[object, ...]:
    return config.outbox, config.outbox_bytes, config.durability


def _bounded(timeout: float) -> float:
    """Return a timeout that the system takes: "for ever" and "not at all" may be said in any way."""
    return min(max(0.0, timeout), 1_000_000.0)


_LOST, _QUEUED = "they are lost with the process", "they stay queued"
_NO_KEY = (
    "no events are sent: there is no key. Set THRIVESTACK_API_KEY, or THRIVESTACK_ENDPOINT to a running "
    "`ts-autotrack inspect`, or TS_AUTOTRACK_EXPORTER=console to see events here, or TS_AUTOTRACK_DISABLED=1 to "
    "silence this."
)
_OUTBOX_SET_LATE = (
    "configure(): the outbox was chosen with the first event. Set it before that, or call shutdown() first; until then "
    "events go where they did."
)
_QUEUE_FULL = (
    "the queue is full (TS_AUTOTRACK_MAX_QUEUE={} events, TS_AUTOTRACK_MAX_QUEUE_BYTES={}): new events are refused and "
    "counted as 'queue_full' until the server takes some."
)

client = Client()
atexit.register(client.end)  # now: a hook registered while exit hooks run is not called any more
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(before=client.before_fork, after_in_parent=client.after_fork, after_in_child=client.reset)
