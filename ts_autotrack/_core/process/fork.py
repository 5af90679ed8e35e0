"""Forks: no thread of this library may be in the middle of its work when the process forks."""

from __future__ import annotations

import sys
from _thread import RLock, get_ident

TYPE_CHECKING = False  # typing costs as much to import as this whole library

FORK_TIMEOUT = 5.0
"""Seconds that a fork waits for each lock."""


class ForkGuard:
    """The two locks of a process that a fork has to hold.

    A child forked while another thread imports a module is left with half of the module. A child forked while a thread
    initializes OpenSSL or uses SQLite is left with a lock that nobody releases.

    Attributes:
        setup_lock: Held while a thread imports the delivery stack, starts the worker or opens a transport.
        drain_lock: Held while a thread encodes or uses the outbox.
    """

    def __init__(self) -> None:
        self._forking_from_thread = False
        self.reset()

    def reset(self) -> None:
        """Start over in a forked child, where the parent's other threads do not exist."""
        self.setup_lock = RLock()
        self.drain_lock = RLock()
        self._held: dict[int, list[RLock]] = {}  # by thread: two threads may fork at once
        # A process forked by a thread that was not the main one ends with its last thread, and runs no exit hook.
        self._forked_by_thread, self._forking_from_thread = self._forking_from_thread, False

    def hold(self) -> None:
        """Wait for both locks and hold them during the fork. The drain lock comes first, everywhere."""
        threading = sys.modules.get("threading")
        self._forking_from_thread = threading is not None and get_ident() != threading.main_thread().ident
        held = self._held.setdefault(get_ident(), [])
        held += [lock for lock in (self.drain_lock, self.setup_lock) if lock.acquire(timeout=FORK_TIMEOUT)]

    def release(self) -> None:
        """Release the locks after the fork, in the parent."""
        for lock in self._held.pop(get_ident(), ()):
            lock.release()

    def main_thread_ended(self) -> bool:
        """Return True in a process forked by a thread, after that thread has ended: no exit hook will run."""
        return self._forked_by_thread and not sys.modules["threading"].main_thread().is_alive()
