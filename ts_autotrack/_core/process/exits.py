"""The ways a process ends, and what each needs so that the events that it still holds are delivered.

Most ends run `atexit`. Those that do not are arranged for with the first event, in the process that tracks it: SIGTERM
with the default disposition, multiprocessing's children, Celery's workers and uvicorn, which each end in their own way.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class _Registry:
    """What multiprocessing holds on to, weakly, for `register_after_fork`."""


_registry = _Registry()


def arrange(drain: Callable[[], object], drain_last: Callable[[], object], drain_to_die: Callable[[], bool]) -> None:
    """Have what is left delivered at those ends of this process that run no exit hooks.

    Args:
        drain: Waits for what is left, within the setting EXIT_TIMEOUT; the process may go on afterwards.
        drain_last: The same where the process is going to end when its threads have ended.
        drain_to_die: The same where a signal is going to end the process; returns False if what that has interrupted
            should go on for a moment.
    """
    on_sigterm(drain_to_die)
    _in_child_processes(drain, drain_last)
    _in_uvicorn(drain)


def on_sigterm(drain_to_die: Callable[[], bool]) -> None:
    """Drain before the default disposition of SIGTERM ends the process; an application's own handler is left alone.

    Python lets only the main thread of the main interpreter set a handler: elsewhere this does nothing.
    """
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        and not _is_caught_in_c(signal.SIGTERM)
    ):
        with suppress(ValueError):  # a subinterpreter, whose main thread is not that of the process
            signal.signal(signal.SIGTERM, _Sigterm(drain_to_die))


BREATH, MOST_BREATH = 0.002, 0.1
"""Seconds that what the signal has interrupted goes on for: the first time, and at the most. Each time is twice as long
as the one before, for an import takes more than a moment."""


class _Again:
    """The signal is about to be sent again.

    Attributes:
        sent: Whether it has been.
        taken: Whether the handler has seen it.
        over: Whether it will not be sent any more.
    """

    over = sent = taken = False

    def send(self, thread: int, number: int, breath: float) -> None:
        """Send it until it is seen: right before a call that waits it is not, until that returns."""
        time.sleep(breath)
        self.sent = True
        while not self.taken:
            signal.pthread_kill(thread, number)
            time.sleep(breath)
            breath = min(2 * breath, MOST_BREATH)
        self.over = True


class _Sigterm:  # pragma: no cover - it ends the process that measures
    """Handles SIGTERM: waits for what is left, then has the signal end the process, whose status is that of the signal.

    What the signal has interrupted may hold a lock that delivery needs: a log handler's, that of an import, a tracing
    tool's. Where delivery seems to be stuck, it goes on for a moment, until the signal is sent again.
    """

    def __init__(self, drain_to_die: Callable[[], bool]) -> None:
        self._drain_to_die = drain_to_die
        self._ending = 0  # the process that does; not a child of it that has just been forked
        self._again: _Again | None = None
        self._breath = BREATH

    def __call__(self, number: int, _: FrameType | None) -> None:
        again = self._again if self._ending == os.getpid() else None
        if again is not None and again.taken:
            return  # one too many of ours
        if again is not None and again.sent:
            again.taken = True
            time.sleep(BREATH)  # for one too many of ours to come in
            while not again.over:
                time.sleep(BREATH)
            if self._again is not again:
                return  # another call, in the middle of this one, has answered
            self._again = None
        elif self._ending == os.getpid():
            self._die(number)  # whoever sends it twice does not want to wait
            return
        else:
            self._ending, self._again, self._breath = os.getpid(), None, BREATH
        gevent: Any = sys.modules.get("gevent")
        if gevent is not None and gevent.getcurrent().parent is not None:
            gevent.spawn(self._wait_in_place, number)  # the hub must not wait, nor the greenlet that delivers
        elif gevent is not None or not _reaches_main(number):
            self._wait_in_place(number)
        else:
            self._wait(number)

    def _wait(self, number: int) -> None:
        done = True
        try:
            done = self._drain_to_die()
        finally:
            if done:
                self._die(number)
            elif not self._send_again(number):
                self._wait_in_place(number)

    def _wait_in_place(self, number: int) -> None:
        try:
            while not self._drain_to_die():
                time.sleep(BREATH)
        finally:
            self._die(number)

    def _send_again(self, number: int) -> bool:
        self._again = again = _Again()
        main = threading.main_thread().ident or 0
        try:  # not a Thread, which takes locks that may be those held
            _thread.start_new_thread(again.send, (main, number, self._breath))
        except RuntimeError:  # no thread can be started
            return False
        self._breath = min(2 * self._breath, MOST_BREATH)
        return True

    def _die(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        if os.getpid() == 1:  # the first process of a container, which that does not end
            signal.signal(number, self)
            self._ending = 0


def _reaches_main(number: int) -> bool:
    """Whether the main thread, which calls this, can be sent a signal: not on Windows, nor where it blocks it."""
    return hasattr(signal, "pthread_kill") and number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _is_caught_in_c(number: int) -> bool:
    """Whether a handler is there that Python knows nothing of, such as `faulthandler.register` installs."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib costs an import
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):  # not Linux
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def _in_child_processes(drain: Callable[[], object], drain_last: Callable[[], object]) -> None:
    """Children of multiprocessing and billiard leave by `os._exit`, after their finalizers."""
    for package in ("multiprocessing", "billiard"):
        util, process = sys.modules.get(f"{package}.util"), sys.modules.get(f"{package}.process")
        if util is not None and getattr(process, "_parent_process", None) is not None:
            util.Finalize(None, drain_last, exitpriority=0)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # A forkserver's child that tracked while its main module was imported has its finalizers cleared after that.
        finalize = util.Finalize
        util.register_after_fork(_registry, lambda _: finalize(None, drain_last, exitpriority=0))
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:  # its workers skip even the finalizers
        signals.worker_process_shutdown.connect(_ignoring_arguments(drain), weak=False, dispatch_uid="ts_autotrack")


def _ignoring_arguments(drain: Callable[[], object]) -> Callable[..., None]:
    def receive(**_: object) -> None:
        drain()

    return receive


def _in_uvicorn(drain: Callable[[], object]) -> None:
    """Uvicorn handles SIGTERM itself, restores the default disposition at its end and sends itself the signal again."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if server is None or type(server).__module__ != "uvicorn.server" or "shutdown" in vars(server):
        return
    shutdown = server.shutdown  # pragma: no cover - a signal ends the process that measures

    async def shutdown_and_drain(*args: Any, **kwargs: Any) -> None:  # pragma: no cover
        await shutdown(*args, **kwargs)
        drain()

    server.shutdown = shutdown_and_drain  # pragma: no cover
