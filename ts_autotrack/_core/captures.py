"""Captures of tests: what a test tracks is kept in memory, and everything else is set aside meanwhile."""

from __future__ import annotations

from _thread import RLock

from ts_autotrack._core.account import Account
from ts_autotrack._core.config import load, quiet
from ts_autotrack._core.diagnostics import report
from ts_autotrack._core.locks import HeldWithin

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Protocol

    from ts_autotrack._core.config import Config
    from ts_autotrack._core.delivery.memory import MemoryWorker
    from ts_autotrack._core.process.fork import ForkGuard

    class Engine(Protocol):
        """The part of the client that this module needs."""

        forks: ForkGuard

        def check_process(self) -> None:
            """Start over if this process is a child of a fork that Python's hooks did not see."""
            ...

        def capture(self, config: Config) -> MemoryWorker:
            """Use these settings; make the worker and return it."""
            ...

        def exchange(self, other: Account) -> None:
            """Exchange all contents with another account."""
            ...

        def resume(self) -> None:
            """Go on with the settings and the worker from before a capture."""
            ...


PAUSE_TIMEOUT = 1.0
"""Seconds to wait for a request in progress, which is cancelled then, and again for its end."""
LOCK_TIMEOUT = 5.0
"""Seconds to wait for a thread that encodes events or starts the worker."""
FORCED = {"exporter": "memory", "jsonl_path": "-", "disabled": False}
"""Settings of a capture, over all arguments, variables and files. Captured events go to no file."""


class Captures:
    """The open captures of a process. Captures nest; they may end in any order."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: list[Account] = []  # set aside, by the innermost capture last
        self.reset()

    def reset(self) -> None:
        """Start over in a forked child. A child of a captured test goes on capturing."""
        self._open.clear()
        self._paused = False
        self._pausing = RLock()  # several threads may open captures

    def begin(self, arguments: dict[str, object]) -> tuple[Account, MemoryWorker]:
        """Keep the next events in memory, and set everything else aside.

        The library's threads go on, but no request begins. An event that another thread tracks at the moment belongs to
        the capture or to the account set aside.

        Args:
            arguments: Arguments of `configure()` in force.

        Returns:
            The account for `end`, and the worker that keeps the events: another thread may open a capture at once.
        """
        engine = self._engine
        engine.check_process()
        report()  # notices from before the test
        account = Account()
        account.arguments, account.forced = arguments, FORCED
        with HeldWithin(engine.forks.drain_lock, LOCK_TIMEOUT), HeldWithin(engine.forks.setup_lock, LOCK_TIMEOUT):
            engine.exchange(account)
            self._open.append(account)
            worker = engine.capture(load({**arguments, **FORCED}, warn=quiet))
        try:
            self._pause(account)
        except BaseException:  # Ctrl-C, or a time limit of the test
            self.end(account)
            raise
        return account, worker

    def end(self, account: Account) -> None:
        """Go on with an account that `begin` has set aside. A second call does nothing, nor does a forked child's."""
        forks, captures = self._engine.forks, self._open
        report()  # notices of the test
        with HeldWithin(forks.drain_lock, LOCK_TIMEOUT), HeldWithin(forks.setup_lock, LOCK_TIMEOUT):
            if account not in captures:
                return
            index = captures.index(account)
            captures.remove(account)
            if index < len(captures):  # a capture inside is still open, and will go on with this account
                inner = captures[index]
                inner.__dict__, account.__dict__ = account.__dict__, inner.__dict__
                return
            self._engine.exchange(account)
            self._engine.resume()
        self._go_on()

    def end_all(self) -> None:
        """End all captures: the process ends inside."""
        for account in self._open[::-1]:
            self.end(account)

    def _pause(self, account: Account) -> None:
        """Let no request begin. A request in progress may end first, for a moment, and is cancelled then."""
        lock = self._engine.forks.request_lock
        with HeldWithin(self._pausing, LOCK_TIMEOUT):
            if self._paused or not self._open:
                return
            self._paused = lock.acquire(timeout=PAUSE_TIMEOUT)
            if not self._paused and account.worker is not None:
                account.worker.cancel_request()
                self._paused = lock.acquire(timeout=PAUSE_TIMEOUT)

    def _go_on(self) -> None:
        """Let requests begin again after the last capture."""
        with HeldWithin(self._pausing, LOCK_TIMEOUT):
            if self._paused and not self._open:
                self._paused = False
                self._engine.forks.request_lock.release()
