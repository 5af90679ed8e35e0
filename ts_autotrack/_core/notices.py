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
QUEUE_FULL = (
    "the queue is full (TS_AUTOTRACK_MAX_QUEUE={} events, TS_AUTOTRACK_MAX_QUEUE_BYTES={}): new events are refused and "
    "counted as 'queue_full' until the server takes some."
)
