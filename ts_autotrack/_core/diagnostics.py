"""The barrier between faults of this library and the application, and the messages for its operator.

Nothing here logs on the caller's path: `fault` and `warn_once` leave a notice, and the worker reports it.
"""

from __future__ import annotations

# Half of the import time of this package, and loaded with it all the same: `logging` takes a lock before a fork that
# its own import needs, so loading it with the first event could deadlock with a fork at that moment.
import logging
import time
from collections import deque

from ts_autotrack._core.counters import AtomicCounter

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

logger = logging.getLogger("ts_autotrack")

FAULT_INTERVAL = 60.0
"""Seconds between two reports of the same kind of fault."""
MAX_KEYS = 200
"""Distinct keys of a kind of `warn_once` in the life of a process."""
MAX_NOTICES = 100
"""Notices of a kind between two reports."""
MAX_SERVER_TEXTS = 50
"""Distinct server texts that are logged."""

faults = AtomicCounter()
"""Counter of the faults of this library."""
reraise = False
"""True in this project's own tests: the barrier raises the faults that it otherwise holds back."""

_notices: deque[tuple[str, str]] = deque()  # kind and text
_waiting: dict[str, int] = {}  # notices by kind since the last report
_warned: dict[str, set[Hashable]] = {}  # keys by kind
_server_texts: set[str] = set()
_last_fault: dict[str, float] = {}
_debug_handler: logging.Handler | None = None


def fault(activity: str, error: BaseException) -> None:
    """Count a fault of this library and leave a notice, at most once a minute for each activity."""
    next(faults)
    if reraise:
        raise error  # pragma: no cover - only when a test has found a fault
    now = time.monotonic()
    if now - _last_fault.get(activity, -FAULT_INTERVAL) >= FAULT_INTERVAL:
        _last_fault[activity] = now
        notice("fault", f"{activity} failed ({_describe(error)}); the application was not affected")


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
    kind = str(key[0] if isinstance(key, tuple) else key)
    keys = _warned.setdefault(kind, set())
    if key not in keys and len(keys) < MAX_KEYS:
        keys.add(key)
        more = "; further warnings of this kind are not logged" if len(keys) == MAX_KEYS else ""
        notice(kind, message + more)


def warn_now(key: Hashable, message: str) -> None:
    """Log a warning at once, once for each key: for settings, which are read before any worker exists."""
    warn_once(key, message)
    report()


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
    """Log a message at once. A handler or filter of the application that raises does no harm."""
    try:
        handlers = list(_handlers())
        if not any(map(_is_closed, handlers)):
            getattr(logger, level)("ts_autotrack: " + message, *values)
            return
        # A handler that writes to a closed stream prints a traceback: at the exit after pytest, for example.
        number = getattr(logging, level.upper())
        if logger.isEnabledFor(number):
            record = logger.makeRecord(logger.name, number, __file__, 0, "ts_autotrack: " + message, values, None)
            for handler in handlers:
                if number >= handler.level and not _is_closed(handler):
                    handler.handle(record)
    except Exception:  # noqa: BLE001 - the application's handler
        next(faults)


def printable(text: str) -> str:
    """Return a text without control characters, which could forge log lines or control a terminal."""
    if text.isprintable():
        return text
    return "".join([character if character.isprintable() else f"\\x{ord(character):02x}" for character in text])


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


def _is_closed(handler: logging.Handler) -> bool:
    return bool(getattr(getattr(handler, "stream", None), "closed", False))


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - a user's exception may raise from __str__
        return type(error).__name__
