"""A daemon thread that the first poke starts and the next ones wake, without a lock that anybody could wait for."""

from __future__ import annotations

import _thread
import contextlib
import threading
from typing import TYPE_CHECKING

from ts_autotrack._core import diagnostics

if TYPE_CHECKING:
    from collections.abc import Callable


class BackgroundThread:
    """A thread to be. `poke` is called from anywhere, signal handlers and finalizers included."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._starting = _thread.allocate_lock()
        self._thread = threading.Thread(target=run, name=name, daemon=True)

    @property
    def started(self) -> bool:
        """Whether there is a thread."""
        return self._thread.ident is not None

    @property
    def current(self) -> bool:
        """Whether this code runs on it."""
        return threading.current_thread() is self._thread

    def poke(self) -> bool:
        """Wake the thread, or start it; return whether there is one."""
        if self._thread.ident is None:
            return self._start()
        release(self._wake)
        return True

    def sleep(self, seconds: float) -> bool:
        """On the thread: wait for a poke, for so many seconds at the most; return whether there was one."""
        return self._wake.acquire(timeout=max(0.0, seconds))

    def answer(self) -> None:
        """On the thread: regard all pokes so far as answered."""
        self._wake.acquire(blocking=False)

    def _start(self) -> bool:
        if not self._starting.acquire(blocking=False):
            return True  # another caller is at it, and the record of this one is in the buffer already
        try:
            self._thread.start()
        except RuntimeError as error:
            # A limit of the system; or interpreter shutdown, from Python 3.12, when the end is near anyhow.
            if "shutdown" not in str(error):  # pragma: no branch
                diagnostics.warn_once(
                    "thread", f"no thread can be started ({error}); events are sent when the process ends"
                )
            return False
        finally:
            self._starting.release()
        return True


class OneShotEvent:
    """Opens once. Unlike an Event it holds no lock that a signal handler in the same thread could wait for.

    Attributes:
        is_open: Whether it is.
    """

    __slots__ = ("_closed", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._closed = _thread.allocate_lock()
        self._closed.acquire()

    def open(self) -> None:
        """Let everybody through, now and later."""
        self.is_open = True
        release(self._closed)

    def wait(self, timeout: float) -> bool:
        """Wait until it is open, for `timeout` seconds at most, or without end if it is -1; return whether it is."""
        if not self.is_open and self._closed.acquire(timeout=timeout):
            release(self._closed)
        return self.is_open


def release(lock: _thread.LockType) -> None:
    """Release a lock that somebody else may just have released."""
    with contextlib.suppress(RuntimeError):
        lock.release()
