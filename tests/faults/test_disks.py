"""Disks which are full, read-only, refused or late: events wait in memory and arrive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from tests.faults._outboxes import APP, EACH, KILL, OUTAGE, numbers, succeed
from tests.faults._programs import REPORT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow


def tmpfs(size: str) -> list[str]:
    """Return a command to run Python with a small file system of its own at /mnt, if this machine permits."""
    mount = f'mount -t tmpfs -o size={size} none /mnt && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-c"]
    try:
        able = subprocess.run([*command, ""], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        able = False
    if not able:
        pytest.skip("this machine lets nobody mount a file system")
    return command


FULL = """
import logging, os, sys, threading
import ts_autotrack
from ts_autotrack import stats, track
fails = threading.Event()
class Handler(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        if "does not work" in record.getMessage(): fails.set()
logging.getLogger("ts_autotrack").addHandler(Handler())
track("e", {"n": -1}, user_id="u", group_id="g"); ts_autotrack.flush(0.5)
filler = open("/mnt/filler", "wb", buffering=0)
try:
    while True: filler.write(bytes(4096))
except OSError: pass
for n in range(200): track("e", {"n": n, "text": "x" * 1000}, user_id="u", group_id="g")
fails.wait(20)
print(stats().pending)
os.unlink("/mnt/filler")
filler.close()
for n in range(200, 300): track("e", {"n": n}, user_id="u", group_id="g")
ts_autotrack.configure(endpoint=sys.argv[1])
print(ts_autotrack.flush(10), stats().delivered, stats().dropped)
"""


def test_full_disk(inspector: Inspector, dead: dict[str, str], guarantee: Any) -> None:
    """A full disk costs no event: events wait in memory, with a single warning, and the disk is used again later."""
    environment = {**os.environ, **dead, "TS_AUTOTRACK_OUTBOX": "/mnt/outbox"}
    done = subprocess.run(
        [*tmpfs("1m"), FULL, inspector.endpoint], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "201\nTrue 301 {}\n", done.stderr
    assert done.stderr.count("the outbox /mnt/outbox does not work (database or disk is full)") == 1
    arrived = sorted(item["properties"]["n"] for item in inspector.items(event_name="e"))
    guarantee("full disk", "outbox", range(-1, 300), arrived, processes=0)


READ_ONLY = """
import sys
import ts_autotrack
for n in range(300): ts_autotrack.track("e", {"n": n}, user_id="u", group_id="g")
print(ts_autotrack.flush(10), ts_autotrack.stats().delivered)
"""


def test_read_only_disk(inspector: Inspector, alive: dict[str, str], guarantee: Any) -> None:
    """With a read-only disk, events wait in memory, with a single warning, and arrive."""
    environment = {**os.environ, **alive, "TS_AUTOTRACK_OUTBOX": "/mnt/outbox"}
    code = REPORT + READ_ONLY
    done = subprocess.run([*tmpfs("1m,ro"), code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True 300\n", done.stderr
    assert done.stderr.count("does not work") == 1
    arrived = sorted(item["properties"]["n"] for item in inspector.items(event_name="e"))
    guarantee("read-only disk", "outbox", range(300), arrived)


LIMITED = """
import resource, sys
import ts_autotrack
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for n in range(1000): ts_autotrack.track("e", {"n": n, "text": "x" * 1000}, user_id="u", group_id="g")
print(ts_autotrack.flush(0.3), ts_autotrack.stats().pending)
ts_autotrack.configure(endpoint=sys.argv[1])
print(ts_autotrack.flush(10), ts_autotrack.stats().delivered)
"""


@pytest.mark.parametrize("setting", [{}, EACH], ids=["batch", "event"])
def test_disk_that_refuses_to_write(inspector: Inspector, dead: dict[str, str], setting: dict[str, str]) -> None:
    """A disk error in the middle of a commit costs no event."""
    code = f"import sys; sys.argv = ['', {inspector.endpoint!r}]\n" + LIMITED
    done = run_python(code, **dead, **setting)
    assert done.stdout == "False 1000\nTrue 1000\n", done.stderr
    assert done.stderr.count("does not work") == 1
    assert len({item["context"]["event_id"] for item in inspector.items()}) == 1000


@pytest.mark.parametrize("obstacle", ["file", "broken link"])
def test_outbox_that_cannot_be_made(inspector: Inspector, alive: dict[str, str], outbox: Path, obstacle: str) -> None:
    """If no outbox can be made, events wait in memory, with a single warning, and arrive."""
    if obstacle == "file":
        outbox.write_text("")
    else:
        outbox.symlink_to("/nowhere/at/all")
    done = run_python(f"{APP}ten(); ts_autotrack.flush(5)", **alive)
    assert done.returncode == 0
    assert done.stderr.count("does not work") == 1
    assert numbers(inspector) == list(range(-1, 10))


@pytest.mark.parametrize("setting", [{}, EACH], ids=["batch", "event"])
@pytest.mark.parametrize("order", ["ten(); unlink(); ten(10)", "ten(); ten(10); unlink()", "unlink(); ten(); ten(10)"])
def test_disk_that_works_again_gets_all_that_waited(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    order: str,
    setting: dict[str, str],
) -> None:
    """Once an outbox can be made, all events waiting in memory are written, including events being sent."""
    outbox.write_text("in the way")
    code = f"""{OUTAGE.replace("flush(0.2)", "flush(1)")}
def unlink(): os.unlink({str(outbox)!r})
{order}
kept()
{KILL}
"""
    done = run_python(code, **dead, **setting)
    assert done.returncode == -signal.SIGKILL
    succeed(alive, outbox)
    assert [item["properties"]["n"] for item in inspector.items(event_name="feature_used")] == list(range(-1, 20))


OLD = """
import sqlite3
connect = sqlite3.connect
def old(*arguments, **options):
    database = connect(*arguments, **options)
    database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    return database
sqlite3.connect = old
import sys, ts_autotrack
with ts_autotrack.user_context("u", group_id="g"):
    for n in range(300):
        ts_autotrack.track("e", {"n": n})
        ts_autotrack.identify({"n": n})
print(ts_autotrack.flush(0.5))
ts_autotrack.configure(endpoint=sys.argv[1])
print(ts_autotrack.flush(100), ts_autotrack.stats().delivered)
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot lower SQLite's limit")
def test_sqlite_that_takes_few_variables(inspector: Inspector, dead: dict[str, str]) -> None:
    """A commit of 600 changes of the endpoint respects the limit of SQLite before 3.32."""
    code = f"import sys; sys.argv = ['', {inspector.endpoint!r}]\n{OLD}"
    done = run_python(code, **dead)  # one request per item: 25 s were too few on a slow disk
    assert done.stdout == "False\nTrue 600\n", done.stderr
    assert "does not work" not in done.stderr
    assert [item["properties"]["n"] for item in inspector.items(event_name="e")] == list(range(300))


BULKY = """
import os, ts_autotrack
with ts_autotrack.user_context("u", group_id="g"):
    for n in range(40): ts_autotrack.track("e", {"n": n, "text": os.urandom(25_000).hex()}); ts_autotrack.flush(0.001)
worker = ts_autotrack._core.client.client.worker
while worker.durable < ts_autotrack.stats().pending: pass
print(ts_autotrack.stats().dropped)
os._exit(0)
"""


@pytest.mark.parametrize("setting", [{}, EACH], ids=["batch", "event"])
def test_limit_bounds_the_directory(dead: dict[str, str], outbox: Path, setting: dict[str, str]) -> None:
    """OUTBOX_BYTES bounds all files of ended and running processes, logs included; the rest is refused and counted."""
    limit, sizes = 6_000_000, list[int]()
    while len(sizes) < 6 or (sizes[-1] != sizes[-2] and len(sizes) < 12):
        done = run_python(BULKY, TS_AUTOTRACK_OUTBOX_BYTES=str(limit), **dead, **setting)
        # Without the report that tells `doctor` of the refused events.
        sizes.append(sum(path.stat().st_size for path in outbox.iterdir() if path.suffix != ".json"))
    assert "outbox_full" in done.stdout, done.stderr
    assert limit / 2 < sizes[-1] < limit * 1.1
    assert sizes[-1] == sizes[-2]  # a process that may write nothing leaves nothing
