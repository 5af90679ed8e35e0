"""Waiting for delivery: flush(), shutdown(), and the one routine for every end of the process."""

from __future__ import annotations

import os
import time

from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture import held
from ts_autotrack._core.outbox import silence

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Protocol

    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.delivery.flush import FlushRequest
    from ts_autotrack._core.delivery.memory import MemoryWorker
    from ts_autotrack._core.delivery.worker import Worker

    class Ending(Protocol):
        """Captures of tests."""

        def end_all(self) -> None:
            """End all captures: the process ends inside."""
            ...

    class Engine(Protocol):
        """The part of the client that this module needs."""

        buffer: Buffer
        config: Config | None

        @property
        def captures(self) -> Ending:
            """Captures of tests."""
            ...

        @property
        def exit_timeout(self) -> float | None:
            """The setting EXIT_TIMEOUT; None before the settings are read."""
            ...

        @property
        def pending(self) -> int:
            """Unsettled events."""
            ...

        @property
        def durable(self) -> int:
            """Unsettled events that survive the process."""
            ...

        def check_process(self) -> None:
            """Start over if this process is a child of a fork that Python's hooks did not see."""
            ...

        def worker_within(self, timeout: float) -> Worker | MemoryWorker | None:
            """Return the worker; wait for a thread that is starting one."""
            ...

        def open_outbox(self) -> None:
            """Start the worker of a process with an outbox: ended processes may have left events there."""
            ...

        def release_forks(self) -> None:
            """Release locks that an interrupted fork holds on this thread."""
            ...


START_TIMEOUT = 5.0
"""Seconds to wait for another thread that imports the delivery stack for the first event."""
COMMIT_TIMEOUT = 1.0
"""Seconds, whatever EXIT_TIMEOUT says, to have the last events in the outbox."""
LEAVE_TIMEOUT = 0.5
"""Seconds to wait for the server's answers if the outbox holds all events: the next process sends the rest."""
EXIT_GRACE = 5.0
"""Seconds after the exit deadline from which a further wait belongs to another end: the process went on."""
MAX_TIMEOUT = 1_000_000.0
"""Seconds that flush() and shutdown() wait at most; locks accept no endless number."""
SLICE, MAX_SLICES = 0.1, 10
"""Seconds after which a signal handler checks whether delivery is stuck, and the number of slices after which it
assumes so: delivery may be stuck inside a request, too."""

MISTAKES = ("no_api_key", "bad_endpoint")
"""Drop reasons of a library that is off against the will of its user: a message has said so, flush() returns False."""
LOST, QUEUED, KEPT = "they are lost with the process", "they stay queued", "the outbox keeps them"
_OF_ONE = {LOST: "it is lost with the process", QUEUED: "it stays queued", KEPT: "the outbox keeps it"}
"""The fates of unsettled events, for a single event."""


class Shutdown:
    """Owns the exit deadline and the report about unsettled events. All exit hooks of a process share it.

    Attributes:
        terminating: True while a signal handler ends the process.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.reset()

    def reset(self) -> None:
        """Start over in a forked child."""
        self.terminating = False
        self._exit_deadline: float | None = None
        self._reported: tuple[int, str] | None = None
        self._request: FlushRequest | None = None  # of the signal handler; one for its whole wait
        self._resumed = False
        self._leaving = False  # True after `shutdown(durable=True)`

    def flush(self, timeout: float) -> bool:
        """See `ts_autotrack.flush`."""
        timeout = _bounded(timeout)
        self._engine.open_outbox()
        worker = self._engine.worker_within(min(timeout, START_TIMEOUT))
        settled = not self._engine.pending if worker is None else worker.flush(timeout)
        diagnostics.report()  # without valid events there is no worker
        settled = settled or self._report(f"flush({timeout:g})", QUEUED)
        buffer = self._engine.buffer
        return settled and not (buffer.close_reason in MISTAKES and buffer.closed_drops.read())

    def shutdown(self, timeout: float | None = None, *, durable: bool = False) -> bool:
        """See `ts_autotrack.shutdown`."""
        held.release_all()
        buffer = self._engine.buffer
        may_go_on = durable and buffer.close_reason is None
        worker = self._engine.worker_within(START_TIMEOUT if timeout is None else min(_bounded(timeout), START_TIMEOUT))
        buffer.close(buffer.close_reason or "shutdown")
        seconds = self.remaining() if timeout is None else _bounded(timeout)
        settled = not self._engine.pending
        if worker is not None:
            worker.commit(max(seconds, COMMIT_TIMEOUT))
            leave = durable and worker.durable == worker.pending
            settled = self._leave(worker, seconds) if leave else worker.stop(seconds)
        diagnostics.report()
        if may_go_on:  # exit hooks that were registered before still run, and may track
            self._leaving = True
            buffer.begin_exit()
        return self._conclude("shutdown", LOST, settled=settled)

    def _leave(self, worker: Worker | MemoryWorker, seconds: float) -> bool:
        """Send for a moment, and leave the rest in the outbox; do not wait if another process has waited in vain."""
        config = self._engine.config
        directory = config.outbox.directory if config is not None else None
        if directory is None:
            return worker.stop(seconds)
        grace = 0.0 if silence.is_silent(directory) else LEAVE_TIMEOUT
        settled = worker.stop(min(seconds, grace), grace)
        if grace:
            # A worker ends by itself, too, when its last request fails together with the end of the wait, or when a
            # slow machine begins no request within the wait.
            in_vain = not worker.ended or worker.failing or (seconds >= grace and not worker.answered)
            silence.note(directory, answered=settled or not in_vain)
        return settled

    def drain(self, *, final: bool = False, interrupting: bool = False) -> bool | None:
        """Deliver the rest within EXIT_TIMEOUT. Every end of a process comes here.

        Args:
            final: The process may end at any time afterwards: deliver each later event before its call returns.
            interrupting: The caller is a signal handler. The interrupted code may hold a lock that delivery needs.

        Returns:
            True if all events are settled. None if the interrupted code has to go on for a moment before another call.
        """
        engine = self._engine
        engine.captures.end_all()
        held.release_all()
        if interrupting:
            engine.release_forks()  # the signal may have interrupted a fork
            self.terminating = os.getpid() != 1  # the first process of a container survives
        worker = engine.worker_within(SLICE if interrupting else START_TIMEOUT)
        if worker is None:
            if interrupting and engine.buffer.records and self.remaining():
                return None  # this thread is starting the worker
            settled: bool | None = not engine.pending
        elif not worker.wake():
            self.shutdown()  # no thread can be started: this one does the work
            if final:
                engine.buffer.begin_exit()
            return True  # or reported
        elif interrupting:
            settled = self._wait_in_slices(worker)
        else:
            worker.commit(max(self.remaining(), COMMIT_TIMEOUT))
            leave = self._leaving and worker.durable == worker.pending
            settled = not worker.pending if leave else worker.flush(self.remaining())
        if settled is None:
            return None
        if final:
            engine.buffer.begin_exit()
        survives = interrupting and not self.terminating
        self._conclude("the end of the process", QUEUED if survives else LOST, settled=settled)
        if survives:
            self._exit_deadline = None  # the next signal has its own time
        return settled

    def run_exit_hook(self) -> None:
        """Stop the worker. Events of later exit hooks are delivered before their call returns."""
        self._engine.check_process()
        self._engine.captures.end_all()
        buffer = self._engine.buffer
        if buffer.close_reason != "shutdown":  # otherwise the application called `shutdown`
            open_until_now = buffer.close_reason is None
            self.shutdown(durable=self._leaving)
            if open_until_now:
                buffer.begin_exit()
        self.wait_for_signal()

    def wait_for_signal(self) -> None:
        """Wait for the end of the process if its signal handler is at work and will send the signal again."""
        if self.terminating:
            time.sleep(self.remaining() + COMMIT_TIMEOUT)

    def remaining(self) -> float:
        """Return the seconds left of EXIT_TIMEOUT, which all waits of one end share.

        There are many: one for each event of a late exit hook, and several in uvicorn, which sends itself the signal
        again. After a wait that settled everything the next one has the whole time again.
        """
        now = time.monotonic()
        if self._exit_deadline is None or now > self._exit_deadline + EXIT_GRACE:
            timeout = self._engine.exit_timeout
            self._exit_deadline = now + (START_TIMEOUT if timeout is None else timeout)
        return max(0.0, self._exit_deadline - now)

    def restart(self) -> None:
        """Forget the exit deadline: the process went on after `shutdown`."""
        self._exit_deadline = None

    def go_on(self) -> None:
        """Forget `shutdown(durable=True)`: the process goes on."""
        if self._leaving:
            self._leaving = self._engine.buffer.exiting = False

    def _wait_in_slices(
        self, worker: Worker | MemoryWorker
    ) -> bool | None:  # pragma: no cover - it ends the process that measures
        """Wait in a signal handler; return None if the interrupted code has to go on for a moment.

        That code may hold a lock that delivery needs, or it is our own. Events that it tracks are waited for, too.
        """
        slices = 0
        while True:
            worker.commit(SLICE)
            if self._request is None or self._request.done.is_set:  # the interrupted code may have changed the worker
                self._request = worker.request_flush()
            left, slices = self.remaining(), slices + 1
            if worker.wait_for(self._request, min(SLICE, left)):
                self._request = None
                if not (self._resumed or self._begin_exit()):
                    return True
                self._resumed = False  # once more, for the events that other code tracked meanwhile
            elif not left or worker.ended:
                worker.cancel(self._request)
                self._request = None
                worker.commit(COMMIT_TIMEOUT)
                return False
            elif worker.may_be_stuck or slices >= MAX_SLICES:
                self._resumed = True
                return None

    def _begin_exit(self) -> bool:  # pragma: no cover - in a process that then ends
        """Let other threads deliver each later event before its call returns; return False if they do so already.

        Threads of a server go on while the signal handler waits. Measured with four threads that track 2,000 events a
        second each: without this, SIGTERM lost 26 to 340 events of calls that had returned.
        """
        buffer = self._engine.buffer
        if buffer.exiting or not self.terminating or buffer.close_reason is not None:
            return False
        buffer.begin_exit()
        return True

    def _conclude(self, call: str, fate: str, *, settled: bool) -> bool:
        if settled:
            self._exit_deadline = None
            return True
        return self._report(call, fate)

    def _report(self, call: str, fate: str) -> bool:
        """Log the number of unsettled events, once for each number and fate; return True if none is left."""
        left, durable = self._engine.pending, self._engine.durable
        if durable:
            diagnostics.log("info", "%s: %s", call, _unsettled(durable, KEPT))
        if left > durable and (left - durable, fate) != self._reported:
            self._reported = left - durable, fate
            diagnostics.log("warning", "%s: %s", call, _unsettled(left - durable, fate))
        return not left


def _unsettled(count: int, fate: str) -> str:
    if count == 1:
        return f"1 event was not delivered in time; {_OF_ONE[fate]}"
    return f"{count} events were not delivered in time; {fate}"


def _bounded(timeout: object) -> float:
    """Return a timeout that the clock can wait for, for any argument. Never raises."""
    try:
        seconds = float(timeout)  # type: ignore[arg-type]
    except OverflowError:
        seconds = MAX_TIMEOUT if timeout > 0 else 0.0  # type: ignore[operator]
    except Exception:  # noqa: BLE001 - no number
        diagnostics.warn_once("timeout", "flush() and shutdown(): the timeout must be a number of seconds; 5 are taken")
        seconds = START_TIMEOUT
    return min(seconds, MAX_TIMEOUT) if seconds > 0 else 0.0  # zero for NaN, too
