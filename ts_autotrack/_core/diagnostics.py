"""The barrier between our faults and the application, and what we have to say to its operator.

Nothing here logs on the caller's path: `fault` and `warn_once` leave a notice, and the worker reports it.
"""

from __future__ import annotations

# More than half of our import, and loaded here all the same: before a fork it takes a lock that its own import needs.
# Were it loaded with the first event, a fork just then would wait for the import, and that for the fork.
import logging
import time
from collections import deque
from itertools import count

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    class Count:
        """What a type checker is to know of `itertools.count`, whose constructor it takes for one of `count`."""

        def __next__(self) -> int: ...
        def __iter__(self) -> Iterator[int]: ...
else:
    Count = count

logger = logging.getLogger("ts_autotrack")
FAULT_INTERVAL = 60.0
"""Seconds between two reports of the same kind of fault."""

reraise = False
"""Set by our own test suite: a fault that the barrier would hold back is raised instead."""

_notices: deque[str] = deque(maxlen=256)
_told: set[Hashable] = set()
_MOST_TOLD = 2_000
_heard: set[str] = set()
_MOST_HEARD = 50
_faulted: dict[str, float] = {}
_debug_handler: logging.Handler | None = None


class AtomicCounter(Count):
    """A counter that threads, signal handlers and finalizers may all advance, by `next(tally)`, without a lock.

    `itertools.count` advances in one uninterruptible step; `n += 1` does not.
    """

    __slots__ = ("_begun_at",)

    def __init__(self) -> None:
        self._begun_at = 0

    def reset(self) -> None:
        """Start over at zero."""
        self._begun_at += self.read()

    def read(self) -> int:
        """How often it was advanced."""
        return int(repr(self)[14:-1]) - self._begun_at  # "AtomicCounter(5)": the only way to read without advancing


faults = AtomicCounter()


def fault(doing: str, error: BaseException) -> None:
    """Count a fault of ours and leave a notice, once a minute for each kind of work."""
    next(faults)
    if reraise:
        raise error  # pragma: no cover - only when a test has found a fault
    now = time.monotonic()
    if now - _faulted.get(doing, -FAULT_INTERVAL) >= FAULT_INTERVAL:
        _faulted[doing] = now
        _notices.append(f"{doing} failed ({_describe(error)}); the application was not affected")


def warn_once(key: Hashable, message: str) -> None:
    """Leave a notice that is reported once for `key` in the life of the process."""
    if key not in _told and len(_told) < _MOST_TOLD:
        _told.add(key)
        _notices.append(message)


def warn_of_server(text: str, message: str) -> None:
    """`warn_once` for what a server says, which may be something else each time: only so much of it is shown."""
    if text not in _heard and len(_heard) <= _MOST_HEARD:
        _heard.add(text)
        _notices.append(message if len(_heard) <= _MOST_HEARD else "the server says more, which is not shown any more")


def report() -> None:
    """Log the notices left since the last report. Runs on the worker, or where no worker will. Never raises."""
    while _notices:
        say("warning", "%s", _notices.popleft())


def say(level: str, message: str, *values: object) -> None:
    """Log a message now; a handler or filter of the application that raises is not our end."""
    try:
        getattr(logger, level)("ts_autotrack: " + message, *values)
    except Exception:  # noqa: BLE001 - the application's handler
        next(faults)


def warn_now(key: Hashable, message: str) -> None:
    """`warn_once`, logged at once: for settings, read before any worker exists."""
    warn_once(key, message)
    report()


def debug(on: bool) -> None:  # noqa: FBT001 - a setting's value
    """Show all that the library has to say on standard error, whatever the application's logging does, or cease to."""
    global _debug_handler  # noqa: PLW0603 - the setting DEBUG is the process's
    if on and _debug_handler is None:
        _debug_handler = logging.StreamHandler()
        _debug_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(_debug_handler)
        logger.setLevel(logging.DEBUG)
    elif not on and _debug_handler is not None:
        logger.removeHandler(_debug_handler)
        logger.setLevel(logging.NOTSET)
        _debug_handler = None


def forget() -> None:
    """Start over in a forked child or a test: nothing reported yet, nothing waiting."""
    _notices.clear()
    _told.clear()
    _heard.clear()
    _faulted.clear()


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's exception may raise from __str__
        return type(error).__name__
