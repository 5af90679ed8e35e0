"""SIGTERM with the default disposition: the process delivers its events first."""

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

PAUSE, MAX_PAUSE = 0.002, 0.1
"""Seconds for which the interrupted code goes on: the first time, and at most. Each pause is twice as long as the one
before, because an import takes longer than a moment."""


def handle_sigterm(drain: Callable[[], bool | None]) -> bool:
    """Drain before the default disposition of SIGTERM ends the process. An application's own handler stays.

    Args:
        drain: Delivers the rest; returns None if the interrupted code has to go on for a moment before another call.

    Returns:
        False if SIGTERM would end the process without a call of `drain`, because this is not the main thread: Python
        lets no other thread set a handler.
    """
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL or _is_caught_in_c(signal.SIGTERM):
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    with suppress(ValueError):  # a subinterpreter, whose main thread is not the process's
        signal.signal(signal.SIGTERM, SigtermHandler(drain))
    return True


class _Resend:
    """A signal that is sent again after a pause.

    Attributes:
        sent: True once sent.
        handled: True once the handler ran.
        finished: True once no further signal follows.
    """

    finished = handled = sent = False

    def run(self, thread: int, number: int, pause: float) -> None:  # pragma: no cover - in a process that then ends
        """Resend until the handler runs; Python defers a handler during a blocking C call."""
        time.sleep(pause)
        self.sent = True
        while not self.handled:
            signal.pthread_kill(thread, number)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)
        self.finished = True


class SigtermHandler:  # pragma: no cover - it ends the process that measures
    """Delivers the rest, then lets the signal end the process, so that the exit status is the signal's.

    The interrupted code may hold a lock that delivery needs: a log handler's, an import's, a tracing tool's. Where
    delivery seems to be stuck, that code goes on for a moment until the signal is sent again.
    """

    def __init__(self, drain: Callable[[], bool | None]) -> None:
        self._drain = drain
        self._ending_pid = 0  # a child forked during the end has another one
        self._resend: _Resend | None = None
        self._pause = PAUSE

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Handle the signal."""
        if self._ending_pid != os.getpid():
            self._ending_pid, self._resend, self._pause = os.getpid(), None, PAUSE
        elif not self._is_resent(number):
            return
        gevent: Any = sys.modules.get("gevent")
        if gevent is not None and gevent.getcurrent().parent is not None:
            gevent.spawn(self._wait_in_place, number)  # neither the hub nor the delivering greenlet may wait
        elif gevent is not None or not _can_signal_main_thread(number):
            self._wait_in_place(number)
        else:
            self._wait(number)

    def _is_resent(self, number: int) -> bool:
        """Return True if this call continues the wait; end the process at a second signal from outside."""
        resend = self._resend
        if resend is not None and resend.handled:
            return False  # one resent signal too many
        if resend is None or not resend.sent:
            self._die(number)  # a second SIGTERM from outside: its sender does not want to wait
            return False
        resend.handled = True
        time.sleep(PAUSE)  # lets a last resent signal arrive
        while not resend.finished:
            time.sleep(PAUSE)
        if self._resend is not resend:
            return False  # a nested call of this handler continued already
        self._resend = None
        return True

    def _wait(self, number: int) -> None:
        done = True
        try:
            done = self._drain() is not None
        finally:
            if done:
                self._die(number)
            elif not self._send_again(number):
                self._wait_in_place(number)

    def _wait_in_place(self, number: int) -> None:
        try:
            while self._drain() is None:
                time.sleep(PAUSE)
        finally:
            self._die(number)

    def _send_again(self, number: int) -> bool:
        self._resend = resend = _Resend()
        main = threading.main_thread().ident or 0
        try:  # not a Thread, which takes locks that the interrupted code may hold
            _thread.start_new_thread(resend.run, (main, number, self._pause))
        except RuntimeError:  # no thread can be started
            return False
        self._pause = min(2 * self._pause, MAX_PAUSE)
        return True

    def _die(self, number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        if os.getpid() == 1:  # the first process of a container survives the signal
            signal.signal(number, self)
            self._ending_pid = 0


def _can_signal_main_thread(number: int) -> bool:
    """Return False on Windows, and where the main thread, which calls this, blocks the signal."""
    return hasattr(signal, "pthread_kill") and number not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _is_caught_in_c(number: int) -> bool:
    """Return True if C code installed a handler that Python does not know, as `faulthandler.register` does."""
    try:
        with open("/proc/self/status") as status:
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):  # not Linux
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)
