"""The barrier between faults of this library and the application, and the messages for its operator.

`fault` and `warn_once` only leave a notice, which the worker reports: nothing is logged on the path of a tracked call.
Every message is one line, with credentials masked and control characters visible, whatever foreign text it quotes.
"""

from __future__ import annotations

# Half of the import time of this package, and loaded with it all the same: `logging` takes a lock before a fork that
# its own import needs, so loading it with the first event could deadlock with a fork at that moment.
import logging
import sys
import time
from collections import deque

from ts_autotrack._core.counters import AtomicCounter
from ts_autotrack._core.descriptors import standard_error_stalls
from ts_autotrack._core.redaction import mask, printable

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from typing import Any

logger = logging.getLogger("ts_autotrack")

FAULT_INTERVAL = 60.0
"""Seconds between two reports of the same kind of fault."""
MAX_KEYS = 200
"""Distinct keys of a kind of `warn_once` in the life of a process."""
MAX_NOTICES = 100
"""Notices of a kind between two reports."""
MAX_RECENT, MAX_RECENT_CHARS = 20, 500
"""Warnings kept for the process report, and characters of each."""
MAX_SERVER_TEXTS = 50
"""Distinct server texts that are logged."""

faults = AtomicCounter()
"""Counter of the faults of this library."""
reraise = False
"""True in this project's own tests: the barrier raises the faults that it otherwise holds back."""

recent: deque[str] = deque(maxlen=MAX_RECENT)
"""The last warnings, for the process report."""

_notices: deque[tuple[str, str]] = deque()  # kind and text
_waiting: dict[str, int] = {}  # notices by kind since the last report
_warned: dict[str, set[Hashable]] = {}  # keys by kind
_server_texts: set[str] = set()
_last_fault: dict[str, float] = {}
_debug_handler: logging.Handler | None = None


def fault(activity: str, error: BaseException) -> None:
    """Count a fault of this library and leave a notice, at most once a minute for each activity.

    Raises nothing but an `error` of the application's own signal handler, such as a time limit: swallowing the error
    would let the work go on without a limit.
    """
    if _is_of_signal_handler(error):
        raise error
    next(faults)
    if reraise:
        raise error  # pragma: no cover - only when a test has found a fault
    try:
        now = time.monotonic()
        if now - _last_fault.get(activity, -FAULT_INTERVAL) >= FAULT_INTERVAL:
            _last_fault[activity] = now
            notice("fault", f"{activity} failed ({_describe(error)}); the application was not affected")
    except Exception:  # noqa: BLE001, S110 - a sandbox may forbid clocks; the fault is counted
        pass


def notice(kind: str, message: str) -> None:
    """Leave a notice. Each kind has its own bound, so no kind keeps another from the log."""
    count = _waiting.get(kind, 0)
    if count < MAX_NOTICES:
        _waiting[kind] = count + 1
        _notices.append((kind, message))


def warn_once(key: Hashable, message: str) -> None:
    """Leave a notice, once for each key in the life of the process, up to a bound for each kind.

    Args:
        key: The kind of the notice, or a tuple that begins with the kind.
        message: The text.
    """
    if _is_new(key):
        notice(_kind(key), message + _last(key))


def warn_now(key: Hashable, message: str, level: str = "warning") -> None:
    """Log a message at once, once for each key: for settings, which are read before any worker exists."""
    if _is_new(key):
        log(level, "%s", message + _last(key))


def _kind(key: Hashable) -> str:
    return str(key[0] if isinstance(key, tuple) else key)


def _is_new(key: Hashable) -> bool:
    """Return True for a key seen for the first time, up to a bound for each kind."""
    keys = _warned.setdefault(_kind(key), set())
    if key in keys or len(keys) >= MAX_KEYS:
        return False
    keys.add(key)
    return True


def _last(key: Hashable) -> str:
    """Return the end of the last message of a kind."""
    return "; further warnings of this kind are not logged" if len(_warned[_kind(key)]) == MAX_KEYS else ""


def warn_of_server(text: str, message: str) -> None:
    """Leave a notice for each distinct text of a server, up to a bound: a server may say something new each time."""
    if text not in _server_texts and len(_server_texts) <= MAX_SERVER_TEXTS:
        _server_texts.add(text)
        shown = len(_server_texts) <= MAX_SERVER_TEXTS
        notice("server", message if shown else "further messages of the server are not logged")


def report() -> None:
    """Log the notices left since the last report. Never raises."""
    while _notices:
        try:
            kind, message = _notices.popleft()
        except IndexError:  # another thread reports, too
            return
        _waiting.pop(kind, None)
        log("warning", "%s", message)


def log(level: str, message: str, *values: object) -> None:
    """Log a message at once. A handler or filter of the application that raises does no harm.

    A message is left out if standard error is a pipe that nobody reads: its handler would hold this thread for good.
    """
    try:
        safe = tuple(value if isinstance(value, int | float) else printable(mask(str(value))) for value in values)
        if level in ("warning", "error"):
            recent.append((message % safe)[:MAX_RECENT_CHARS])
        if standard_error_stalls():
            return
        handlers = list(_handlers())
        if not any(map(_is_closed, handlers)):
            getattr(logger, level)("ts_autotrack: " + message, *safe)
            return
        # A handler that writes to a closed stream prints a traceback: at the exit after pytest, for example.
        number = getattr(logging, level.upper())
        if logger.isEnabledFor(number):
            record = logger.makeRecord(logger.name, number, __file__, 0, "ts_autotrack: " + message, safe, None)
            for handler in handlers:
                if number >= handler.level and not _is_closed(handler):
                    handler.handle(record)
    except Exception:  # noqa: BLE001 - the application's handler
        next(faults)


class Memory:
    """The messages logged once, as long as another account is the process's."""

    __slots__ = ("last_fault", "warned")

    def __init__(self) -> None:
        self.warned: dict[str, set[Hashable]] = {}
        self.last_fault: dict[str, float] = {}


def exchange(memory: Memory) -> None:
    """Exchange the messages logged once with the messages of another account."""
    warned, last_fault = dict(_warned), dict(_last_fault)
    _warned.clear()
    _last_fault.clear()
    _warned.update(memory.warned)
    _last_fault.update(memory.last_fault)
    memory.warned, memory.last_fault = warned, last_fault


def set_debug(*, on: bool) -> None:
    """Show all messages on standard error, whatever the application's logging does, or stop doing so."""
    global _debug_handler  # noqa: PLW0603 - the setting `debug` belongs to the process
    if on and _debug_handler is None:
        _debug_handler = logging.StreamHandler()
        _debug_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(_debug_handler)
        logger.setLevel(logging.DEBUG)
    elif not on and _debug_handler is not None:
        logger.removeHandler(_debug_handler)
        logger.setLevel(logging.NOTSET)
        _debug_handler = None


def reset() -> None:
    """Forget all notices and keys, as a forked child or a test needs."""
    recent.clear()
    _notices.clear()
    _waiting.clear()
    _warned.clear()
    _server_texts.clear()
    _last_fault.clear()


def _handlers() -> Iterator[logging.Handler]:
    """Yield the handlers that a line of ours reaches."""
    source: logging.Logger | None = logger
    found = False
    while source is not None:
        for handler in source.handlers:
            found = True
            yield handler
        source = source.parent if source.propagate else None
    if not found and logging.lastResort is not None:
        yield logging.lastResort


def _is_of_signal_handler(error: BaseException) -> bool:
    """Return True if a signal handler raised `error` while code of this library ran."""
    signal: Any = sys.modules.get("signal")
    if signal is None:
        return False
    try:
        handlers = [signal.getsignal(number) for number in signal.valid_signals()]
        codes = [getattr(handler, "__code__", None) for handler in handlers]
        traceback = error.__traceback__
        while traceback is not None:
            if any(traceback.tb_frame.f_code is code for code in codes):
                return True
            traceback = traceback.tb_next
    except Exception:  # noqa: BLE001, S110 - a handler may be any object of the application
        pass
    return False


def _is_closed(handler: logging.Handler) -> bool:
    """Return True if a handler writes to a closed stream: itself, by its target (MemoryHandler), by rich's console."""
    target = getattr(handler, "target", handler) or handler
    streams = getattr(target, "stream", None), getattr(getattr(target, "console", None), "file", None)
    return any(getattr(stream, "closed", False) is True for stream in streams)


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's exception may raise from __str__
        return type(error).__name__
