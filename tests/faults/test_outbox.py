"""An outbox in odd company: foreign files, other processes, lasting traffic."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, run_python, wait_until
from tests.faults.test_crashes import (
    APP,
    EACH,
    KEPT,
    KILL,
    OUTAGE,
    SUCCESSOR,
    events_files,
    leave_behind,
    numbers,
    succeed,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Inspector, ScriptedServer

pytestmark = pytest.mark.slow


def test_what_is_delivered_makes_room(inspector: Inspector, alive: dict[str, str]) -> None:
    """A small outbox, emptied in time, refuses none of a long series of events."""
    code = f"""{APP}
with user_context("u", group_id="g"):
    for n in range(120):
        for k in range(20): work(n)
        assert ts_autotrack.flush(10)
print(ts_autotrack.stats().dropped)
"""
    done = run_python(code, TS_AUTOTRACK_OUTBOX_BYTES="9000", **alive)
    assert done.stdout == "{}\n", done.stderr
    del inspector


STEADY = """
import sys, time
import ts_autotrack
from ts_autotrack import stats, track
for n in range(9000):
    track("e", {"text": "y" * 1000}, user_id="u", group_id="g")
    if n % 1000 == 0: time.sleep(0.1)
while stats().pending < 9000: time.sleep(0.01)
print("full", flush=True)
while True: track("steady", user_id="u", group_id="g"); time.sleep(0.02)
"""


def test_file_of_a_busy_process_shrinks(server: ScriptedServer, alive: dict[str, str]) -> None:
    """A delivered backlog takes no space from other processes, even if its owner's file is never empty."""
    server.always = lambda _: Answer(503)
    environment = {**alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    other = (
        "import ts_autotrack\nts_autotrack.track('b', user_id='u', group_id='g')\n"
        "print(ts_autotrack.flush(5), ts_autotrack.stats().dropped)"
    )
    busy = subprocess.Popen([sys.executable, "-c", STEADY], env={**os.environ, **environment}, stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"full\n"

        def refused() -> bool:
            small = {"TS_AUTOTRACK_OUTBOX_BYTES": "5000000", "TS_AUTOTRACK_EXIT_TIMEOUT": "0"}
            return "outbox_full" in run_python(other, **environment, **small).stdout

        wait_until(refused, "the other process to be refused", 20)
        server.always = None
        wait_until(lambda: not refused(), "room for the other process", 40)
    finally:
        busy.kill()
        busy.communicate()


def test_forked_child_adopts_what_its_dead_parent_left(
    inspector: Inspector,
    dead: dict[str, str],
    outbox: Path,
) -> None:
    """A daemon which outlives its parent process delivers the parent's events, too."""
    code = f"""{OUTAGE}
ten(){KEPT}
parent = os.getpid()
if os.fork():
    {KILL}
while os.getppid() == parent: time.sleep(0.01)
ts_autotrack.configure(endpoint={inspector.endpoint!r}, flush_interval=0.05)
ts_autotrack.track("child", user_id="u", group_id="g")
deadline = time.monotonic() + 40
while ts_autotrack.stats().adopted < 11 and time.monotonic() < deadline: time.sleep(0.05)
"""
    assert run_python(code, **dead).returncode == -signal.SIGKILL
    wait_until(lambda: len(inspector.items()) >= 12, "the events of both", 40)
    wait_until(lambda: not events_files(outbox), "the files to be done with")
    assert numbers(inspector) == list(range(-1, 10))


def test_forked_child_leaves_its_living_parents_file_alone(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
) -> None:
    """A forked child never takes the events of its living parent from the disk."""
    code = f"""{OUTAGE}
ten(){KEPT}
if (child := os.fork()) == 0:
    ts_autotrack.track("child", user_id="u", group_id="g")
    ts_autotrack.flush(0.5)
    time.sleep(0.5)
    os._exit(ts_autotrack.stats().adopted)
assert os.waitpid(child, 0)[1] == 0
"""
    assert run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="0", **dead).returncode == 0
    succeed(alive, outbox)
    assert numbers(inspector) == list(range(-1, 10))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_retry_as_root_leaves_the_items_to_the_application(
    server: ScriptedServer,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """Files written by `sudo ts-autotrack outbox retry` belong to the owner of the directory."""
    server.always = lambda _: Answer(400)
    run_python(f"{APP}ten()", **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint})
    os.chown(outbox, 65_534, 65_534)
    assert "11 items wait" in cli("retry")
    (path,) = events_files(outbox)
    assert (path.stat().st_uid, path.stat().st_gid) == (65_534, 65_534)


def test_python_without_sqlite(inspector: Inspector, alive: dict[str, str]) -> None:
    """Without SQLite, events wait in memory, a warning says so, and the events arrive."""
    done = run_python(f"import sys\nsys.modules['sqlite3'] = sys.modules['_sqlite3'] = None\n{APP}ten()", **alive)
    assert done.returncode == 0
    assert done.stderr.count("this Python has no SQLite") == 1
    assert numbers(inspector) == list(range(-1, 10))


def test_foreign_database_is_set_aside(inspector: Inspector, alive: dict[str, str], outbox: Path) -> None:
    """A foreign database is set aside, and neither sent nor deleted."""
    outbox.mkdir()
    with contextlib.closing(sqlite3.connect(outbox / "customers.events")) as database, database:
        database.execute("CREATE TABLE customers (name)")
        database.execute("INSERT INTO customers VALUES ('Ada')")
    done = run_python(SUCCESSOR, **alive)
    assert "it was set aside as" in done.stderr
    with contextlib.closing(sqlite3.connect(outbox / "customers.events.1.corrupt")) as database:
        assert database.execute("SELECT name FROM customers").fetchall() == [("Ada",)]
    assert len(inspector.items(event_name="successor")) == 1


@pytest.mark.parametrize("damage", ["items = 'x'", "first = 1.5", "path = x'00'", "body = 'text'", "path = '/other'"])
def test_damaged_row_is_set_aside(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    damage: str,
) -> None:
    """A file with an invalid row is set aside with a single warning, and stops no delivery."""
    path = leave_behind(dead, outbox)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE chunks SET {damage}")  # noqa: S608
    done = run_python(SUCCESSOR, **alive)
    assert done.stderr.count("it was set aside as") == 1
    assert "does not work" not in done.stderr
    assert "failed" not in done.stderr
    assert not events_files(outbox)
    assert len(inspector.items(event_name="successor")) == 1


def test_corrupt_quarantine_is_set_aside(
    server: ScriptedServer,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """An unreadable quarantine is replaced by a new quarantine, which keeps the items; events are not affected."""
    outbox.mkdir()
    (outbox / "rejected.db").write_bytes(b"no database " * 1000)
    server.always = lambda _: Answer(422, b"no")
    done = run_python(f"{APP}ten()", **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint})
    assert done.stderr.count("it was set aside as") == 1
    assert "does not work" not in done.stderr
    assert (outbox / "rejected.db.1.corrupt").read_bytes() == b"no database " * 1000
    assert "waiting 0, refused 11" in cli("status")


def test_quarantine_that_is_locked_for_a_while(
    server: ScriptedServer,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """Items refused while the quarantine is locked wait in memory, and reach the quarantine in the end."""
    outbox.mkdir()
    server.always = lambda _: Answer(400, b"no")
    code = f"{APP}print('refused', flush=True); sys.stdin.readline(); time.sleep(1.1); ten()"
    environment = {**os.environ, **alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    with contextlib.closing(sqlite3.connect(outbox / "rejected.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "refused\n"
        database.execute("ROLLBACK")
    process.communicate("\n", timeout=30)
    assert "refused 11" in cli("status")


def test_order_is_kept_over_a_restart_in_the_process(
    inspector: Inspector,
    dead: dict[str, str],
) -> None:
    """Events tracked before `shutdown()` go out before events tracked after the following `configure()`."""
    code = f"""{OUTAGE}
with user_context("u", group_id="g"):
    for n in range(3000): work(n)
ts_autotrack.shutdown(0.3)
ts_autotrack.configure()
with user_context("u", group_id="g"):
    for n in range(3000, 6000): work(n)
time.sleep(0.2)
ts_autotrack.configure(endpoint={inspector.endpoint!r})
deadline = time.monotonic() + 20
while ts_autotrack.stats().pending and time.monotonic() < deadline: ts_autotrack.flush(1)
now = ts_autotrack.stats()
print(now.accepted - now.adopted, now.handed_over == now.adopted)
"""
    done = run_python(code, **dead)
    assert done.stdout == "6001 True\n", done.stderr
    assert [item["properties"]["n"] for item in inspector.items()] == list(range(-1, 6000))


def test_restart_with_another_outbox(inspector: Inspector, dead: dict[str, str], tmp_path: Path) -> None:
    """Events left in the old outbox are accounted for, and no counter goes down."""
    code = f"""{OUTAGE}
ten(); ts_autotrack.shutdown(0.2)
before = ts_autotrack.stats().accepted
ts_autotrack.configure(outbox={str(tmp_path / "other")!r}, endpoint={inspector.endpoint!r})
ten(10); ts_autotrack.flush(10)
now = ts_autotrack.stats()
print(before, now.accepted, now.delivered, now.handed_over, now.adopted)
"""
    assert run_python(code, **dead).stdout == "11 21 10 11 0\n"


def test_outbox_that_is_deleted_before_the_end(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
) -> None:
    """Events of a deleted file are on disk again after the end of the process."""
    code = f"{OUTAGE}ten(){KEPT}\nimport shutil; shutil.rmtree({str(outbox)!r})"
    done = run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="0.2", **dead)
    assert done.returncode == 0
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox.iterdir()} == {0o600}
    assert succeed(alive, outbox) == 11
    assert numbers(inspector) == list(range(-1, 10))


def test_flush_does_not_wait_for_what_others_left(server: ScriptedServer, dead: dict[str, str], outbox: Path) -> None:
    """A process with the number of a dead process, as in a container, waits for its own events only."""
    run_python(
        f"{OUTAGE}with user_context('u', group_id='g'):\n  for n in range(9000): work(n)\n{KEPT[2:]}{KILL}", **dead
    )
    (path,) = events_files(outbox)
    started, _, rest = path.name.rsplit("-", 2)
    code = f"""
import os, time
os.rename({str(path)!r}, {str(outbox)!r} + f"/{started}-{{os.getpid()}}-{rest}")
os.rename({str(path)!r} + "-wal", {str(outbox)!r} + f"/{started}-{{os.getpid()}}-{rest}-wal")
import ts_autotrack
began = time.monotonic()
ts_autotrack.track("own", user_id="u", group_id="g")
print(ts_autotrack.flush(20), ts_autotrack.stats().pending > 1000)
"""

    def slow(_: object) -> Answer:
        threading.Event().wait(0.2)
        return Answer()

    server.always = slow
    done = run_python(code, **{**dead, "THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "0"})
    assert done.stdout == "True True\n", done.stderr


def test_adoption_does_not_wait_for_the_flush_interval(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """A process with a flush interval of a minute adopts within seconds."""
    code = f"{APP}time.sleep(2.1); ten(100); print('waits', flush=True); sys.stdin.read()".replace("=30", "=60")
    environment = {**os.environ, **alive}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "waits\n"
        own = set(events_files(outbox))
        run_python(f"{OUTAGE}ten(){KEPT}{KILL}", **dead)
        (left,) = set(events_files(outbox)) - own

        def adopted() -> bool:
            status = [line for line in cli("status").splitlines() if left.name in line]
            return not status or "in use" in status[0]  # delivered already, or locked by a living process

        wait_until(adopted, "adoption", 20)
        process.stdin.close()
        process.wait(30)
    assert len(numbers(inspector)) == 22


def test_export_and_list_of_what_is_damaged(
    server: ScriptedServer,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """A bad file or item hides no other, and a server's words move no cursor."""
    server.always = lambda _: Answer(422, b"\x1b[2J\xc3\xa9\nno")
    run_python(f"{APP}ten()", **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint})
    leave_behind(dead, outbox)
    (outbox / "0-empty.events").touch()
    (outbox / "1-junk.events").write_bytes(b"junk" * 1000)
    with contextlib.closing(sqlite3.connect(outbox / "rejected.db")) as database, database:
        database.execute("UPDATE rejected SET item = 'damaged' WHERE id = 2")
    command = [sys.executable, "-m", "ts_autotrack.cli", "outbox"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, *words, "--directory", str(outbox)]
        return subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)

    pending = run("export", "--pending")
    assert [json.loads(line)["item"]["properties"]["n"] for line in pending.stdout.splitlines()] == list(range(-1, 10))
    assert pending.returncode == 1
    assert pending.stderr.count("it is left out") == 1
    listed = run("list")
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) == 11
    assert r"422: \x1b[2J\xe9\nno" in listed.stdout
    assert "\x1b" not in listed.stdout
    assert "refused 11" in cli("status")


def test_busy_outbox_can_be_looked_at(
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
) -> None:
    """`status` and `export` work again and again beside processes which come, write and go."""
    code = APP + "\nwith user_context('u', group_id='g'):\n  for n in range(10**6): work(n); time.sleep(0.0001)"
    busy = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **alive, **setting}) for setting in ({}, EACH)
    ]
    try:
        wait_until(lambda: len(events_files(outbox)) == 2, "the files of both")
        for _ in range(15):
            lines = cli("status").splitlines()[1:]
            assert [line for line in lines if re.search(r"  waiting \d+  \d+ bytes  in use$", line)] == lines
            cli("export", "--pending")
    finally:
        for process in busy:
            process.kill()
            process.wait()
