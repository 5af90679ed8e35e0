"""Reentrant locks that signal handlers may meet: ownership, and bounded waits that no exception leaves locked."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from _thread import RLock
    from types import FrameType


def owns(lock: RLock) -> bool:
    """Return True if the calling thread holds the lock."""
    return lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001 - there is no public test


def release_leaked(lock: RLock, frame: FrameType | None) -> None:
    """Release a lock that the calling thread holds although none of its work is in progress.

    A signal handler may raise in the instant between the acquisition of a lock and the protected block. No Python code
    can exclude this, so each later call from the application looks for the remains.

    Args:
        lock: The lock.
        frame: Frame of the innermost call of this library.
    """
    if not owns(lock):
        return
    while frame is not None and _is_ours(frame):
        frame = frame.f_back  # the present call
    while frame is not None and not _is_ours(frame):
        frame = frame.f_back
    while frame is None and owns(lock):  # otherwise the present call interrupts work of this library
        lock.release()


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("ts_autotrack.")


class HeldWithin:
    """Holds a lock inside a `with` block, if the lock is free in time.

    A handler of a signal may raise during the wait: the lock is released all the same.

    Attributes:
        held: True if the lock is held.
    """

    __slots__ = ("_lock", "_timeout", "held")

    def __init__(self, lock: RLock, timeout: float) -> None:
        self.held = False
        self._lock = lock
        self._timeout = timeout

    def __enter__(self) -> bool:
        """Wait for the lock; return True if it is held."""
        owned_before = owns(self._lock)
        try:
            self.held = self._lock.acquire(timeout=self._timeout)
        except BaseException:
            if owns(self._lock) and not owned_before:
                self._lock.release()
            raise
        return self.held

    def __exit__(self, *_: object) -> None:
        if self.held and owns(self._lock):  # a call that a signal handler interrupted may have released the lock
            self._lock.release()
        self.held = False
