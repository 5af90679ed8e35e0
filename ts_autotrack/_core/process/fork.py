"""Forks: no thread of this library may be in the middle of its work when the process forks."""

from __future__ import annotations

import sys
from _thread import RLock, allocate_lock, get_ident

from ts_autotrack._core.capture.record import time_of
from ts_autotrack._core.locks import HeldWithin, owns, release_leaked
from ts_autotrack._core.process_id import started_at

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ts_autotrack._core.capture.record import Record

FORK_TIMEOUT = 5.0
"""Seconds that a fork waits for each lock."""
REPAIR_TIMEOUT = 0.5
"""Seconds after which a lock that starting threads hold for microseconds counts as left behind."""


class ForkGuard:
    """The two locks of a process that a fork has to hold.

    A child forked while another thread imports a module is left with half of the module. A child forked while a thread
    initializes OpenSSL or uses SQLite is left with a lock that nobody releases.

    Attributes:
        setup_lock: Held while a thread imports the delivery stack, starts the worker or opens a transport.
        drain_lock: Held while a thread encodes or uses the outbox.
        request_lock: Held during each request, and while a test captures events. A fork does not wait for the lock.
        sqlite_usable: False in a child whose fork no hook announced, if a thread of its parent used SQLite meanwhile.
    """

    def __init__(self) -> None:
        self.setup_lock = RLock()
        self.drain_lock = RLock()
        self.request_lock = allocate_lock()
        self._forking_from_thread = False
        self.reset()

    def reset(self, *, announced: bool = True) -> None:
        """Start over in a forked child, where the parent's other threads do not exist.

        Args:
            announced: False if no hook announced the fork: one of these threads may then have been using SQLite.
        """
        self.sqlite_usable = announced or self.drain_lock.acquire(blocking=False)
        if not announced:
            _repair_threading()
        self.setup_lock = RLock()
        self.drain_lock = RLock()
        self.request_lock = allocate_lock()
        self._held: dict[int, list[HeldWithin]] = {}  # by thread: two threads may fork at once
        # A process forked by a thread that was not the main one ends with its last thread, and runs no exit hook.
        self._forked_by_thread, self._forking_from_thread = self._forking_from_thread, False

    def release_leaked(self) -> None:
        """Release the locks if this thread holds them although nothing is in progress: a signal handler raised."""
        if owns(self.setup_lock) or owns(self.drain_lock):
            for lock in (self.setup_lock, self.drain_lock):
                release_leaked(lock, sys._getframe())  # noqa: SLF001 - inspect is heavy to import

    def hold(self) -> None:
        """Wait for both locks and hold them during the fork. The drain lock comes first, everywhere."""
        threading = sys.modules.get("threading")
        self._forking_from_thread = threading is not None and get_ident() != threading.main_thread().ident
        held = self._held.setdefault(get_ident(), [])
        for lock in (self.drain_lock, self.setup_lock):
            holder = HeldWithin(lock, FORK_TIMEOUT)
            held.append(holder)  # before the wait: a signal handler that raises must not leave a held lock behind
            holder.__enter__()

    def release(self) -> None:
        """Release the locks after the fork, in the parent."""
        # A signal handler may raise at any moment: the entry goes last, and another call finishes the work.
        for holder in self._held.get(get_ident(), ()):
            holder.__exit__()
        self._held.pop(get_ident(), None)

    def main_thread_ended(self) -> bool:
        """Return True in a process forked by a thread, after that thread has ended: no exit hook will run."""
        return self._forked_by_thread and not sys.modules["threading"].main_thread().is_alive()


def _repair_threading() -> None:  # pragma: no cover - no hook of the measuring tool sees such a child
    """Replace the lock on the start of threads if a thread of the parent held it: no thread could be started here.

    Python's own fork hook does the same.
    """
    threading = sys.modules.get("threading")
    lock = getattr(threading, "_active_limbo_lock", None)
    if threading is not None and lock is not None:
        if lock.acquire(timeout=REPAIR_TIMEOUT):
            lock.release()
        else:
            threading._active_limbo_lock = threading.RLock()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way


def records_since_start(records: Iterable[Record]) -> list[Record]:
    """Return the records that this process captured: all after the last one from before its start.

    A forked child begins with a copy of its parent's records, which the parent sends. The start is the end of a tick of
    the system's clock: no record of the parent is sent twice.
    """
    started = started_at()
    own: list[Record] = []
    for record in records:
        moment = time_of(record[2])
        if isinstance(moment, int) and moment < started:
            own.clear()
        else:
            own.append(record)
    return own
