"""A daemon thread that the first `wake` starts, without a lock that a caller could wait for."""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from ts_autotrack._core import diagnostics
from ts_autotrack._core.locks import HeldWithin, owns

if TYPE_CHECKING:
    from collections.abc import Callable


UNCERTAIN = 1.0
"""Seconds after an interrupted start until the thread is taken for absent. A second start would end a thread that only
begins to run."""


class BackgroundThread:
    """A thread that sleeps until somebody wakes it. Signal handlers and finalizers may call `wake`, too."""

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._woken = _thread.allocate_lock()
        self._woken.acquire()
        self._starting = _thread.RLock()
        self._interrupted_at: float | None = None
        self._run, self._name = run, name
        self._thread = self._new()

    def _new(self) -> threading.Thread:
        return threading.Thread(target=self._run, name=self._name, daemon=True)

    @property
    def started(self) -> bool:
        """True once the thread exists."""
        return self._thread.ident is not None

    @property
    def current(self) -> bool:
        """True if the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def wake(self) -> bool:
        """Wake the thread, or start it; return False if it cannot be started."""
        if self._thread.ident is None:
            return self._start()
        release(self._woken)
        return True

    def sleep(self, seconds: float) -> bool:
        """Wait on the thread for a wake-up; return True if one came within these seconds."""
        return self._woken.acquire(timeout=max(0.0, seconds))

    def clear_wakeup(self) -> None:
        """Take note on the thread of all wake-ups so far."""
        self._woken.acquire(blocking=False)

    def _start(self) -> bool:
        if owns(self._starting):
            return True  # a signal handler or finalizer inside this function
        with HeldWithin(self._starting, 0) as free:
            # Otherwise another caller is starting it, and this caller's record is in the buffer already.
            return self._start_now() if free else True

    def _start_now(self) -> bool:
        if self._interrupted_at is not None:
            if time.monotonic() - self._interrupted_at < UNCERTAIN:
                return True
            self._interrupted_at, self._thread = None, self._new()
        try:
            self._thread.start()
        except RuntimeError as error:
            # A limit of the system; or interpreter shutdown, from Python 3.12, shortly before the end.
            if "shutdown" not in str(error):  # pragma: no branch
                diagnostics.warn_once(
                    "thread", f"no thread can be started ({error}); events are sent when the process ends"
                )
            return False
        except BaseException:  # of a signal handler: the thread may exist
            self._interrupted_at = time.monotonic()
            raise
        return True


class OneShotEvent:
    """An event that is set once. Unlike `threading.Event` it has no lock that a signal handler could wait for.

    Attributes:
        is_set: True once set.
    """

    __slots__ = ("_unset", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._unset = _thread.allocate_lock()
        self._unset.acquire()

    def set(self) -> None:
        """Let all waiting callers go on."""
        self.is_set = True
        release(self._unset)

    def wait(self, timeout: float) -> bool:
        """Wait until the event is set, at most `timeout` seconds, or without end for -1; return `is_set`."""
        if not self.is_set and self._unset.acquire(timeout=timeout):
            release(self._unset)
        return self.is_set


def release(lock: _thread.LockType) -> None:
    """Release a lock that another thread may have released just now."""
    with contextlib.suppress(RuntimeError):
        lock.release()
