"""Imports of the library beside imports of the application."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from tests.faults._programs import numbers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

RUNS = 20
"""Fresh processes for each way to set the endpoint: a fault of every third process is missed once in 3,000 times."""

RACE = """
import os, sys, time
{early}
from ts_autotrack import track
{late}
track("e", user_id="u", group_id="g")
end = time.monotonic() + 0.5
while "trio" not in sys.modules and time.monotonic() < end: pass  # until another thread begins to import trio
import trio.from_thread
"""

AUDIT = """
import sys, threading
import ts_autotrack
from ts_autotrack import flush, shutdown, track
imported = set()
def audit(event, arguments):
    if event == "import" and threading.current_thread().name.startswith("ts_autotrack"):
        imported.add(arguments[0])
sys.addaudithook(audit)
for n in range(3): track("e", {"n": n}, user_id="u", group_id="g")
flush(1)
shutdown(1)
print("imported:", sorted(imported))
"""


@pytest.mark.parametrize("when", ["before the import", "after the import"])
def test_first_event_does_not_break_an_import_of_the_application(dead_endpoint: str, when: str) -> None:
    """The application imports trio, which the HTTP client imports, too, right after its first event.

    While a thread of the library imported the HTTP client, 17 of 20 such processes failed with `KeyError: 'trio'`.
    """
    setting = f"os.environ['THRIVESTACK_ENDPOINT'] = {dead_endpoint!r}"
    early, late = (setting, "") if when == "before the import" else ("", setting)
    code = RACE.format(early=early, late=late)
    environment = {**os.environ, "TS_AUTOTRACK_EXIT_TIMEOUT": "0"}

    def run(_: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stderr if done.returncode else ""

    with ThreadPoolExecutor(2) as pool:
        failures = [stderr for stderr in pool.map(run, range(RUNS)) if stderr]
    assert failures == []


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"THRIVESTACK_ENDPOINT": "https://localhost:1/api", "THRIVESTACK_API_KEY": "k"},
        {"TS_AUTOTRACK_OUTBOX": "outbox"},
        {"TS_AUTOTRACK_OUTBOX": "outbox", "TS_AUTOTRACK_DURABILITY": "event"},
        {"TS_AUTOTRACK_EXPORTER": "console"},
        {"TS_AUTOTRACK_EXPORTER": "jsonl"},
        {
            "HTTP_PROXY": "http://127.0.0.1:1",
            "THRIVESTACK_ENDPOINT": "http://example.invalid",
            "THRIVESTACK_API_KEY": "k",
        },
    ],
    ids=lambda variables: " ".join(variables) or "HTTP",
)
def test_no_thread_of_the_library_imports(inspector: Inspector, variables: dict[str, str], tmp_path: Path) -> None:
    """The threads of the library find all modules loaded, for each transport and each kind of queue."""
    if "TS_AUTOTRACK_OUTBOX" in variables:
        variables = {**variables, "TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox")}
    done = run_python(
        AUDIT, **{"THRIVESTACK_ENDPOINT": inspector.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "0", **variables}
    )
    assert done.returncode == 0, done.stderr
    assert "imported: []" in done.stdout, done.stdout


@pytest.mark.parametrize("first", ["gevent", "ts_autotrack"])
def test_gevent_may_patch_before_or_after_the_import(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str, first: str
) -> None:
    """Greenlets deliver in both orders; only the documented one, gevent first, is free of surprises elsewhere."""
    patch = "import gevent.monkey; gevent.monkey.patch_all()\n"
    code = (
        (patch if first == "gevent" else "")
        + "import atexit, json, os, uuid\nimport ts_autotrack\nfrom ts_autotrack import track, user_context\n"
        + (patch if first != "gevent" else "")
        + """
import gevent
def ten(start):
    with user_context("u", group_id="g"):
        for n in range(start, start + 10):
            track("e", {"n": n})
            gevent.sleep(0)
ten(0)
assert ts_autotrack.flush(15)
gevent.joinall([gevent.spawn(ten, start) for start in range(10, 100, 10)])
assert ts_autotrack.flush(15)
with open(os.path.join(os.environ["ACCOUNTS"], uuid.uuid4().hex), "w") as file:
    json.dump(ts_autotrack.stats()._asdict(), file)
"""
    )
    done = run_python(code, **target)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    guarantee("gevent patches before or after the import", kept, range(100), numbers(inspector))
