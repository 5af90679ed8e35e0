"""Reentrant locks that signal handlers may meet: ownership, and bounded waits that no exception leaves locked."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from _thread import RLock


def owns(lock: RLock) -> bool:
    """Return True if the calling thread holds the lock."""
    return lock._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001 - there is no public test


class HeldWithin:
    """Holds a lock inside a `with` block, if the lock is free in time.

    A handler of a signal may raise at any moment, also during the wait: the lock is released all the same.

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
