"""Wires buffer, worker and exporter together. `tracker` is the only mutable global."""

from __future__ import annotations

import atexit
import os
from _thread import allocate_lock
from collections import deque

from ts_autotrack import _baggage, _faults, _values
from ts_autotrack._buffer import Buffer
from ts_autotrack._stats import Counts

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from ts_autotrack._buffer import Record
    from ts_autotrack._config import Config
    from ts_autotrack._delivery import Transport
    from ts_autotrack._events import Item
    from ts_autotrack._worker import Worker
    from ts_autotrack.typing import Stats


LOADING_TIMEOUT = 5.0
"""Seconds that a fork waits for a thread of ours that is importing."""


class Tracker:
    """The library's state in one process: nothing until the first event, then a buffer, a worker and an account."""

    def __init__(self) -> None:
        self.buffer = Buffer()
        self._arguments: dict[str, object] = {}
        self._forks_guarded = False
        self.reset()

    def reset(self) -> None:
        """Start over with no events and no thread, as in a forked child: what is pending is its parent's to send."""
        self.buffer.reset()
        self._loading = allocate_lock()
        self._fork_holds = False
        self._config: Config | None = None
        self._worker: Worker | None = None
        self._ended: Worker | None = None
        self._backlog: deque[Item] = deque()
        self._counts = Counts()
        _faults.forget()
        _values.placeholders.reset()

    def admit(self, record: Record) -> None:
        """Take a record when a capture may not append by itself: the first one, a full buffer, an idle worker."""
        if self._worker is None and self.buffer.off_reason is None:
            self._prepare()
        buffer = self.buffer
        if buffer.off_reason is not None:
            buffer.skip()
        elif len(buffer.records) >= buffer.limit:
            buffer.refused.add()
            _faults.warn_once("queue_full", _QUEUE_FULL.format(buffer.limit))
        else:
            buffer.records.append(record)
            if self._worker is not None and self._worker.poke():
                buffer.open()

    def configure(self, **settings: object) -> None:
        """See `ts_autotrack.configure`."""
        from ts_autotrack._config import load  # noqa: PLC0415 - as in _prepare

        arguments = {**self._arguments, **{k: v for k, v in settings.items() if v is not None}}
        config = load(arguments)
        self._arguments = arguments
        self._apply(config)
        if config.off_reason is None:
            from ts_autotrack._exits import on_sigterm  # noqa: PLC0415 - as above

            on_sigterm(self._drain)  # an application whose threads track first has `configure` called by its main one
        if self._worker is not None and self._worker.stopping:
            self._ended, self._worker = self._worker, None  # after shutdown(): another one takes over
        if self._worker is not None and config.off_reason is None:
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
        if worker is None:
            return not self._left()
        return worker.flush(timeout) or self._tell_left(f"flush({timeout:g})", "they stay queued")

    def shutdown(self, timeout: float | None = None) -> bool:
        """See `ts_autotrack.shutdown`."""
        self.buffer.close(self.buffer.off_reason or "shutdown")
        worker = self._settled_worker(_bounded(timeout or 0.0))
        if worker is None:
            return not self._left()
        timeout = _bounded(worker.config.exit_timeout if timeout is None else timeout)
        return worker.stop(timeout) or self._tell_left(f"shutdown({timeout:g})", "they are lost with the process")

    def _settled_worker(self, timeout: float) -> Worker | None:
        """Return the worker; if another thread's first event is just preparing it, wait for that."""
        if self._worker is None and self._loading.acquire(timeout=timeout):
            self._loading.release()
        return self._worker

    def _left(self) -> int:
        return len(self.buffer.records) + len(self._backlog)

    def _drain(self) -> None:
        if self._worker is not None:  # pragma: no branch - none in a forked child that has tracked nothing
            self.flush(self._worker.config.exit_timeout)

    def stats(self) -> Stats:
        """See `ts_autotrack.stats`."""
        from ts_autotrack.typing import Stats  # noqa: PLC0415 - typing costs as much to import as all of us

        buffer, counts = self.buffer, self._counts
        waiting, encoded = len(buffer.records), len(self._backlog)
        dropped = {reason: tally.read() for reason, tally in buffer.skipped.items()}
        dropped |= {
            "queue_full": buffer.refused.read(),
            "suppressed": buffer.suppressed.read(),
            "invalid": buffer.invalid.read(),
            "fault": buffer.lost.read(),
        }
        accepted = counts.taken + waiting + sum(dropped.values())
        for reason, events in counts.dropped.copy().items():
            dropped[reason] = dropped.get(reason, 0) + events
        return Stats(
            accepted=accepted,
            delivered=counts.delivered,
            pending=waiting + encoded,
            rejected=counts.rejected,
            dropped={reason: events for reason, events in dropped.items() if events},
            replaced=_values.placeholders.read(),
        )

    def _prepare(self) -> None:
        """Read the settings and make the worker. One caller does it; the others leave their record and go on."""
        if not self._loading.acquire(blocking=False):
            return
        try:
            # Loaded with the first event: a program that imports us but tracks nothing does not pay for it.
            from ts_autotrack._config import load  # noqa: PLC0415
            from ts_autotrack._exits import arrange  # noqa: PLC0415
            from ts_autotrack._worker import Worker  # noqa: PLC0415

            config = self._config or load(self._arguments)
            if self.buffer.off_reason is None:  # else shut down while this was loading
                self._apply(config)
            if self.buffer.off_reason is None and self._worker is None:
                self._guard_forks()
                self._worker = Worker(
                    self.buffer, self._backlog, self._counts, config, connect, self._loading, self._ended
                )
                arrange(self._drain)
        except Exception as error:  # noqa: BLE001 - the barrier; the next event tries again
            _faults.fault("starting", error)
        finally:
            self._loading.release()

    def _guard_forks(self) -> None:
        """Have forks wait while a thread of ours is importing: the child would be left with half a module, for good.

        Hooks run last registered first, and that of `logging` takes a lock which imports need: so ours comes after it.
        """
        if not self._forks_guarded and hasattr(os, "register_at_fork"):  # pragma: no branch - once, and not on Windows
            self._forks_guarded = True
            _faults.logger()
            os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork)

    def _before_fork(self) -> None:
        self._fork_holds = self._loading.acquire(timeout=LOADING_TIMEOUT)

    def _after_fork(self) -> None:
        if self._fork_holds:  # pragma: no branch - else an import has hung
            self._fork_holds = False
            self._loading.release()

    def _apply(self, config: Config) -> Config:
        self._config = config
        self.buffer.limit = config.max_queue
        _baggage.enabled = config.baggage
        _faults.debug(config.debug)
        if config.off_reason is None:
            self.buffer.off_reason = None
            self.buffer.idle()
            return config
        self.buffer.close(config.off_reason)
        while self._worker is None and self.buffer.records:  # left by other threads while this one read the settings
            self.buffer.records.popleft()
            self.buffer.skip()
        if config.off_reason == "no_api_key":
            _faults.warn_now("no_api_key", _NO_KEY)
        return config

    def _tell_left(self, call: str, fate: str) -> bool:
        left = self.stats().pending
        if left:  # pragma: no branch - else the last one has arrived just now
            _faults.say("warning", "%s: %d events were not delivered in time; %s", call, left, fate)
        return not left


def _bounded(timeout: float) -> float:
    """Return a timeout that the system takes: "for ever" and "not at all" may be said in any way."""
    return min(max(0.0, timeout), 1_000_000.0)


def connect(config: Config) -> Transport:
    """Open the transport that `config` asks for; each is loaded only if it is used."""
    if config.exporter == "console":
        from ts_autotrack._local import ConsoleTransport  # noqa: PLC0415

        return ConsoleTransport()
    if config.exporter == "jsonl":
        from ts_autotrack._local import JsonLinesTransport  # noqa: PLC0415

        return JsonLinesTransport(config.jsonl_path)
    from ts_autotrack._transport import HttpTransport  # noqa: PLC0415

    return HttpTransport(config)


_NO_KEY = (
    "no events are sent: there is no key. Set THRIVESTACK_API_KEY, or THRIVESTACK_ENDPOINT to a running "
    "`ts-autotrack inspect`, or TS_AUTOTRACK_EXPORTER=console to see events here, or TS_AUTOTRACK_DISABLED=1 to "
    "silence this."
)
_QUEUE_FULL = (
    "{0} events wait and the queue is full (TS_AUTOTRACK_MAX_QUEUE): new events are refused and counted as "
    "'queue_full' until the server takes some."
)

tracker = Tracker()
atexit.register(tracker.shutdown)  # now: a hook registered while exit hooks run is not called any more
if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(after_in_child=tracker.reset)
