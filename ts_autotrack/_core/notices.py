"""Messages of the client: why no events are sent."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from ts_autotrack.typing import DropReason

NO_KEY = (
    "no events are sent: there is no key. Set THRIVESTACK_API_KEY, or THRIVESTACK_ENDPOINT to a running "
    "`ts-autotrack inspect`, or TS_AUTOTRACK_EXPORTER=console to see events here, or TS_AUTOTRACK_DISABLED=1 to "
    "silence this."
)
IN_TESTS = (
    "no events are sent: pytest runs, and the endpoint is not on this machine. Use the fixture `captured_events` to "
    "check the events of a test, or set THRIVESTACK_ENDPOINT to a running `ts-autotrack inspect`, or "
    "TS_AUTOTRACK_IN_TESTS=1 to send the events all the same."
)
WARNINGS: dict[DropReason | None, str] = {"no_api_key": NO_KEY, "in_tests": IN_TESTS}
OFF: dict[str, tuple[str, str]] = {
    "disabled": (
        "a setting turns the library off",
        "Unset TS_AUTOTRACK_DISABLED and DO_NOT_TRACK, and set TS_AUTOTRACK_EXPORTER to something else than none.",
    ),
    "no_api_key": ("no key is set", "Set THRIVESTACK_API_KEY; for an inspector, THRIVESTACK_ENDPOINT is enough."),
    "in_tests": (
        "pytest runs, or has started the process, and the endpoint is on another machine",
        "Set THRIVESTACK_ENDPOINT to a running `ts-autotrack inspect`, or TS_AUTOTRACK_IN_TESTS=1.",
    ),
    "bad_endpoint": (
        "the endpoint is refused",
        "Correct THRIVESTACK_ENDPOINT; the log of the process names the fault.",
    ),
    "shutdown": ("shutdown() was called", "Track nothing after shutdown(), or call configure() to start again."),
}
"""Cause and remedy by drop reason, while the library is off."""
DROPS: dict[str, tuple[str, str]] = {
    "unattributed": (
        "no user was known",
        "Name the user by user_context(...), bind_user(...) earlier in the request, user= or TS_AUTOTRACK_USER.",
    ),
    "suppressed": ("inside suppress(), or tracked by a finalizer", ""),
    "queue_full": (
        "the queue in memory was full: the server is too slow or away",
        "Use an outbox, or raise TS_AUTOTRACK_MAX_QUEUE and TS_AUTOTRACK_MAX_QUEUE_BYTES.",
    ),
    "outbox_full": (
        "the outbox was full: the server is too slow or away",
        "Raise TS_AUTOTRACK_OUTBOX_BYTES.",
    ),
    "outbox_corrupt": (
        "an outbox file became unreadable and was set aside",
        "Check the disk; such files end in .corrupt.",
    ),
    "too_large": ("an event alone exceeded a request", "Capture fewer or shorter values: a request has 2 MB at most."),
    "invalid": ("the calls were no events", "The log names each of them and the reason."),
    "fault": ("a fault of ts_autotrack", "Please report the warning in the log."),
}
"""Cause and remedy by drop reason, while the library is on. No remedy: the drop is meant."""
QUEUE_FULL = (
    "the queue is full (TS_AUTOTRACK_MAX_QUEUE={} events, TS_AUTOTRACK_MAX_QUEUE_BYTES={}): new events are refused and "
    "counted as 'queue_full' until the server takes some."
)
