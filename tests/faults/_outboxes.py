"""Programs under test with an outbox: an application, its killed form, and its successor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import run_python
from tests.faults import _programs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

SUCCESSOR = (
    _programs.REPORT
    + """
import ts_autotrack
ts_autotrack.track("successor", user_id="u", group_id="g")
ts_autotrack.flush(10)
deadline = __import__("time").monotonic() + 20
while ts_autotrack.stats().pending and __import__("time").monotonic() < deadline: __import__("time").sleep(0.01)
print(ts_autotrack.stats().adopted)
"""
)
BEGUN = "work(-1); ts_autotrack.flush(5)  # the thread runs, and sleeps"
ATTRIBUTED = "with user_context('u', group_id='g'): work(-1)\n"
APP = _programs.APP.replace(BEGUN, ATTRIBUTED + "ts_autotrack.flush(5)")
OUTAGE = _programs.APP.replace(BEGUN, ATTRIBUTED + "ts_autotrack.flush(0.2)")
EACH = {"TS_AUTOTRACK_DURABILITY": "event"}


KEPT = "; kept(); "
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def numbers(inspector: Inspector) -> list[int]:
    """Return the sorted numbers of the events tracked before the successor."""
    return sorted(item["properties"]["n"] for item in inspector.items(event_name="feature_used"))


def events_files(outbox: Path) -> list[Path]:
    """Return the event files of an outbox."""
    return sorted(outbox.glob("*.events"))


def succeed(alive: dict[str, str], outbox: Path) -> int:
    """Start a successor, which delivers the remaining events; return the number of adopted events."""
    done = run_python(SUCCESSOR, **alive)
    assert done.returncode == 0, done.stderr
    assert events_files(outbox) == []
    return int(done.stdout)


def leave_behind(dead: dict[str, str], outbox: Path) -> Path:
    """Leave eleven events of a killed process behind; return its file."""
    run_python(f"{OUTAGE}ten(){KEPT}{KILL}", **dead)
    (path,) = events_files(outbox)
    return path
