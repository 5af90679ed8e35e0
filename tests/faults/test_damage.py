"""Damaged, deleted, foreign and locked files in an outbox."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, run_python
from tests.faults._outboxes import APP, EACH, KEPT, OUTAGE, SUCCESSOR, events_files, leave_behind, numbers, succeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector, ScriptedServer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("damage", [b"this is no database" * 1000, b""])
def test_corrupt_file_is_set_aside(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path, damage: bytes
) -> None:
    """An unreadable file is renamed, never deleted, and causes no second warning."""
    path = leave_behind(dead, outbox)
    Path(f"{path}-wal").unlink()
    path.write_bytes(damage)
    done = run_python(SUCCESSOR, **alive)
    assert done.returncode == 0
    if damage:
        assert "cannot be read (file is not a database); it was set aside" in done.stderr
        assert Path(f"{path}.1.corrupt").read_bytes() == damage
        assert run_python(SUCCESSOR, **alive).stderr == ""
    else:
        assert path.exists()  # its owner may be making the file right now
        os.utime(path, (0, 0))
        assert run_python(SUCCESSOR, **alive).stderr == ""
        assert not path.exists()
    assert len(inspector.items(event_name="successor")) == 2


def test_file_that_breaks_while_it_is_in_use(
    inspector: Inspector, dead: dict[str, str], accounts: Path, outbox: Path
) -> None:
    """A file destroyed while in use is set aside; events still in memory arrive, the rest are counted."""
    code = f"""{OUTAGE}
import contextlib, glob
with user_context("u", group_id="g"):
    for n in range(30000): work(n)
kept()
for path in glob.glob({str(outbox)!r} + "/*.events*"):
    with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:  # may have been set aside already
        file.write(b"\\xff" * os.path.getsize(path))
ts_autotrack.configure(endpoint={inspector.endpoint!r})
ts_autotrack.flush(5)
with user_context("u", group_id="g"):
    for n in range(30000, 30010): work(n)
ts_autotrack.flush(5)
"""
    done = run_python(code, **dead)
    assert done.returncode == 0, done.stderr
    assert "it was set aside" in done.stderr
    assert list(outbox.glob("*.corrupt"))
    arrived = numbers(inspector)
    account = json.loads(next(accounts.iterdir()).read_text())
    assert set(arrived) >= set(range(30000, 30010))
    assert account["accepted"] == 30011
    assert len(arrived) + account["dropped"]["outbox_corrupt"] == 30011


def test_outbox_that_is_deleted_while_it_is_in_use(inspector: Inspector, dead: dict[str, str], outbox: Path) -> None:
    """Events of a deleted file still arrive if the process lasts; new events go to a new file."""
    code = f"""{OUTAGE}
ten(){KEPT}
import shutil; shutil.rmtree({str(outbox)!r})
while not os.path.exists({str(outbox)!r}): ten(10); time.sleep(0.1)
ts_autotrack.configure(endpoint={inspector.endpoint!r})
print(ts_autotrack.flush(10), ts_autotrack.stats().pending)
"""
    done = run_python(code, **dead)
    assert done.stdout == "True 0\n", done.stderr
    assert "was deleted while it was in use" in done.stderr
    assert set(numbers(inspector)) == set(range(-1, 20))


def test_outbox_that_is_deleted_twice(inspector: Inspector, dead: dict[str, str], outbox: Path) -> None:
    """Events of a file deleted twice, the second time with a directory that cannot be made, arrive once each."""
    code = f"""{OUTAGE}
import shutil
outbox = {str(outbox)!r}
def delete(): shutil.rmtree(outbox, ignore_errors=True)
def wait_for_file():
    while not (os.path.isdir(outbox) and any(name.endswith(".events") for name in os.listdir(outbox))): time.sleep(0.01)
ten(); kept(); delete(); wait_for_file()
ten(10); kept(); delete(); open(outbox, "w").close()
ten(20); time.sleep(2.5)
os.unlink(outbox); wait_for_file()
ten(30)
ts_autotrack.configure(endpoint={inspector.endpoint!r})
print(ts_autotrack.flush(10), ts_autotrack.stats().pending, ts_autotrack.stats().handed_over)
"""
    done = run_python(code, **dead)
    assert done.stdout == "True 0 0\n", done.stderr
    assert done.stderr.count("was deleted while it was in use") == 2
    assert numbers(inspector) == list(range(-1, 40))


def test_outbox_that_is_deleted_for_good(dead: dict[str, str], accounts: Path, outbox: Path) -> None:
    """Events of a deleted file that cannot be written again are counted, and the account closes."""
    code = f"""{OUTAGE}
ten(); kept()
import shutil; shutil.rmtree({str(outbox)!r}); open({str(outbox)!r}, "w").close()
"""
    done = run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="5", **dead)
    assert done.returncode == 0
    account = json.loads(next(accounts.iterdir()).read_text())
    assert account["dropped"] == {"outbox_corrupt": 11}


def test_outbox_that_is_deleted_while_other_files_are_being_sent(
    inspector: Inspector, dead: dict[str, str], outbox: Path
) -> None:
    """A process recovers its own deleted file before delivering another process's file."""
    leave_behind(dead, outbox)
    code = f"""{OUTAGE}
ten(10)
while ts_autotrack.stats().adopted < 11: time.sleep(0.01)
import glob
for path in glob.glob({str(outbox)!r} + f"/*-{{os.getpid()}}-*"): os.unlink(path)
deadline = time.monotonic() + 20
while not glob.glob({str(outbox)!r} + f"/*-{{os.getpid()}}-*") and time.monotonic() < deadline:
    ten(20); time.sleep(0.1)
ts_autotrack.configure(endpoint={inspector.endpoint!r})
ts_autotrack.flush(10)
deadline = time.monotonic() + 20
while ts_autotrack.stats().pending and time.monotonic() < deadline: time.sleep(0.05)
"""
    done = run_python(code, **dead)
    assert "was deleted while it was in use" in done.stderr, done.stderr
    assert set(numbers(inspector)) == set(range(-1, 30))


def test_file_of_a_later_version_is_left_alone(dead: dict[str, str], alive: dict[str, str], outbox: Path) -> None:
    """After a downgrade, files of the later version wait for the later version."""
    path = leave_behind(dead, outbox)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    done = run_python(SUCCESSOR, **alive)
    assert done.stderr.count("was written by a later version") == 1
    assert events_files(outbox) == [path]


def test_file_whose_owner_died_while_creating_it(alive: dict[str, str], outbox: Path) -> None:
    """A file with a header and no table yet is deleted."""
    outbox.mkdir()
    path = outbox / "20200101T000000.000000-1-00000000.events"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("BEGIN IMMEDIATE")
        database.execute("COMMIT")
    assert path.stat().st_size > 0
    assert run_python(SUCCESSOR, **alive).stderr == ""
    assert events_files(outbox) == []


def test_file_that_somebody_looks_into_is_adopted_later(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path
) -> None:
    """A file locked by another tool is left alone, and adopted by the next scan after the lock."""
    path = leave_behind(dead, outbox)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        assert run_python(SUCCESSOR, **alive).stdout == "0\n"
    assert succeed(alive, outbox) == 11
    assert numbers(inspector) == list(range(-1, 10))


FOREIGN = ["database", "database in WAL mode", "text", "empty file", "named pipe", "directory", "link"]


@pytest.mark.parametrize("setting", [{}, EACH], ids=["batch", "event"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_file_is_left_alone(
    inspector: Inspector,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
    kind: str,
    setting: dict[str, str],
) -> None:
    """A file that no outbox made is neither opened for writing, nor renamed, nor deleted, and stops no delivery."""
    outbox.mkdir()
    path = elsewhere = outbox / "customers.events"
    if kind == "named pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "text":
        path.write_text("Ada\n" * 100)
    elif kind == "empty file":
        path.touch()
    else:
        elsewhere = path if kind != "link" else outbox.parent / "customers.db"
        mode = "WAL" if kind == "database in WAL mode" else "DELETE"
        run_python(DATABASE, DATABASE=str(elsewhere), MODE=mode)
    if kind == "link":
        path.symlink_to(elsewhere)
    os.utime(elsewhere, (0, 0))
    before = {file.name: contents(file) for file in outbox.iterdir()}, contents(elsewhere)
    done = run_python(SUCCESSOR, **alive, **setting)
    assert done.stdout == "0\n", done.stderr
    regular = kind not in ("named pipe", "directory", "link")
    assert done.stderr.count("is no file of this outbox and is left alone") == regular
    assert "waiting 0" in cli("status")
    assert ({file.name: contents(file) for file in outbox.iterdir()}, contents(elsewhere)) == before
    assert len(inspector.items(event_name="successor")) == 1


DATABASE = """
import os, sqlite3
database = sqlite3.connect(os.environ["DATABASE"], isolation_level=None)
database.execute("PRAGMA journal_mode = " + os.environ["MODE"])
database.execute("CREATE TABLE customers (name)")
database.execute("INSERT INTO customers VALUES ('Ada')")
os._exit(0)  # a log stays behind
"""


def contents(path: Path) -> tuple[int, bytes]:
    """Return inode and content of a regular file, and no content of anything else."""
    return path.lstat().st_ino, path.read_bytes() if path.is_file() else b""


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


def test_outbox_that_is_deleted_before_the_end(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
) -> None:
    """Events of a deleted file are on disk again after the end of the process."""
    code = f"{OUTAGE}ten(){KEPT}\nimport shutil; shutil.rmtree({str(outbox)!r})"
    done = run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="5", **dead)
    assert done.returncode == 0
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox.iterdir()} == {0o600}
    assert succeed(alive, outbox) == 11
    assert numbers(inspector) == list(range(-1, 10))


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
    (outbox / "20200101T000000.000000-1-00000000.events").touch()
    (outbox / "20200101T000000.000000-2-00000000.events").write_bytes(b"junk" * 1000)
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
