"""What no exit hook can help against: with an outbox the next process delivers it."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Answer, run_python, wait_until
from tests.faults import test_ends as ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector, Request, ScriptedServer

pytestmark = pytest.mark.slow

SUCCESSOR = (
    ends.REPORT
    + """
import ts_autotrack
ts_autotrack.track("successor", user_id="u", group_id="g")
ts_autotrack.flush(10)
deadline = __import__("time").monotonic() + 20
while ts_autotrack.stats().pending and __import__("time").monotonic() < deadline: __import__("time").sleep(0.01)
print(ts_autotrack.stats().adopted)
"""
)
BEGUN = "work(-1); ts_autotrack.flush(5)  # the thread is there, and sleeps"
ATTRIBUTED = "with user_context('u', group_id='g'): work(-1)\n"
APP = ends.APP.replace(BEGUN, ATTRIBUTED + "ts_autotrack.flush(5)")
OUTAGE = ends.APP.replace(BEGUN, ATTRIBUTED + "ts_autotrack.flush(0.2)")
EACH = {"TS_AUTOTRACK_DURABILITY": "event"}


def numbers(inspector: Inspector) -> list[int]:
    """Return what arrived of the processes before the successor."""
    return sorted(item["properties"]["n"] for item in inspector.items(event_name="feature_used"))


def succeed(alive: dict[str, str], outbox: Path) -> int:
    """Start another process, which delivers what is left; return how many events it adopted."""
    done = run_python(SUCCESSOR, **alive)
    assert done.returncode == 0, done.stderr
    assert events_files(outbox) == []
    return int(done.stdout)


def events_files(outbox: Path) -> list[Path]:
    """Return the files of events in an outbox."""
    return sorted(outbox.glob("*.events"))


KEPT = "; kept(); "
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("name", "end", "setting"),
    [
        ("SIGKILL, once a batch is on disk", KEPT + KILL, {}),
        ("`os._exit`, once a batch is on disk", KEPT + "os._exit(0)", {}),
        ("SIGKILL, right after the call, durability=event", "; " + KILL, EACH),
        ("`os._exit`, right after the call, durability=event", "; os._exit(0)", EACH),
        ("restart during an outage", "; sys.exit()", {}),
    ],
)
def test_next_process_delivers_what_a_dead_one_left(  # noqa: PLR0913 - fixtures
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    guarantee: Any,
    name: str,
    end: str,
    setting: dict[str, str],
) -> None:
    """Events on disk arrive from the next process, once; files are private, and gone afterwards."""
    code = f"{OUTAGE}with user_context('u', group_id='g'):\n  for n in range(100): work(n)\npass{end}"
    run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="0.2", **dead, **setting)
    assert stat.S_IMODE(outbox.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox.iterdir()} == {0o600}
    assert succeed(alive, outbox) == 101
    guarantee(name, "outbox", range(-1, 100), numbers(inspector))


def test_batch_is_on_disk_within_50_ms(dead: dict[str, str]) -> None:
    """Those tracked right after a commit wait the longest."""
    code = f"""{OUTAGE}
def latency():
    began = time.monotonic()
    ten(){KEPT}
    return time.monotonic() - began
print(sorted(latency() for _ in range(20))[10])
"""
    done = run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="0", **dead)
    assert float(done.stdout) < 0.05


def test_sigkill_while_events_are_being_delivered(
    inspector: Inspector, alive: dict[str, str], outbox: Path, guarantee: Any
) -> None:
    """Killed at any moment of tracking and delivering, with event durability: what was tracked arrives."""
    code = APP + (
        "first = int(sys.argv[1])\nwith user_context('u', group_id='g'):\n"
        "  for n in range(first, first + 10**6): work(n); print(n, flush=True)"
    )
    environment = {**os.environ, **alive, **EACH}
    said: set[int] = set()
    for turn, pause in enumerate((1, 300, 1_000, 3_000)):
        command = [sys.executable, "-c", code, str(turn * 10**6)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            said.update(int(process.stdout.readline()) for _ in range(pause))
            process.kill()
            said.update(int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1:] == b"\n")
        succeed(alive, outbox)
    arrived = [n for n in numbers(inspector) if n >= 0]
    # And of each process at most the one event that it was about to say.
    about_to_say = {n for n in arrived if n not in said and (n - 1 in said or n % 10**6 == 0)}
    guarantee("SIGKILL at any moment", "outbox", said | about_to_say, arrived, processes=0, counted=False, twice=True)


def test_many_processes_share_an_outbox_and_die(  # noqa: PLR0913 - fixtures
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], accounts: Path, outbox: Path, guarantee: Any
) -> None:
    """Eight processes at once, all killed; three successors at once adopt each file once."""
    code = OUTAGE + f"ten(int(sys.argv[1])){KEPT}{KILL}"
    environment = {**os.environ, **dead}
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(n)], env=environment) for n in range(0, 80, 10)]
    for process in crowd:
        assert process.wait(30) == -signal.SIGKILL
    assert len(events_files(outbox)) == 8
    successors = [
        subprocess.Popen([sys.executable, "-c", SUCCESSOR], env={**os.environ, **alive}, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in successors:
        process.communicate(timeout=60)
    while events_files(outbox):
        succeed(alive, outbox)
    assert sum(json.loads(path.read_text())["adopted"] for path in accounts.iterdir()) == 88
    guarantee("8 processes killed at once", "outbox", range(80), [n for n in numbers(inspector) if n >= 0])


def test_a_live_process_adopts_what_another_leaves(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path
) -> None:
    """A process that runs all along, and is idle, delivers what another one left when it was killed."""
    waiting = "import sys, ts_autotrack\nts_autotrack.track('idle', user_id='u', group_id='g')\nsys.stdin.read()"
    command = [sys.executable, "-c", waiting]
    with subprocess.Popen(command, env={**os.environ, **alive}, stdin=subprocess.PIPE) as process:
        wait_until(lambda: inspector.items(event_name="idle"), "the first event")
        run_python(f"{OUTAGE}ten(){KEPT}{KILL}", **dead)
        wait_until(lambda: len(numbers(inspector)) == 11, "the adopted events", 20)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    assert events_files(outbox) == []


@pytest.mark.parametrize("setting", [{}, EACH], ids=["batch", "event"])
def test_forked_child_that_ends_leaves_its_parents_outbox_alone(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path, setting: dict[str, str]
) -> None:
    """A child that tracks nothing, or something, and ends in every way does no harm to what the parent has on disk."""
    code = f"""{OUTAGE}
ten(){KEPT}
for start, end in ((None, sys.exit), (None, os._exit), (100, os._exit), (200, sys.exit)):
    child = os.fork()
    if child == 0:
        import gc; gc.collect()
        if start: ten(start){KEPT}
        end(0)
    os.waitpid(child, 0)
ten(10){KEPT}
{KILL}
"""
    run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="0.1", **dead, **setting)
    assert len(events_files(outbox)) == 3
    for _ in range(3):
        run_python(SUCCESSOR, **alive)
    assert numbers(inspector) == [*range(-1, 20), *range(100, 110), *range(200, 210)]


def test_request_in_flight_keeps_no_event_from_the_disk(
    server: ScriptedServer, alive: dict[str, str], inspector: Inspector, outbox: Path
) -> None:
    """While the server lets a request hang, later events are on disk within 50 ms all the same."""
    hanging = {**alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    hangs = outbox.parent / "hangs"

    def hang(_: Request) -> Answer:
        hangs.touch()
        return Answer(wait=threading.Event())

    server.always = hang
    wait = f"while not os.path.exists({str(hangs)!r}): time.sleep(0.005)"
    run_python(f"{APP.replace('ts_autotrack.flush(5)', wait)}ten(){KEPT}{KILL}", **hanging)
    assert hangs.exists()
    succeed(alive, outbox)
    assert numbers(inspector) == list(range(-1, 10))


def tmpfs(size: str) -> list[str]:
    """Return a command that runs Python with a small file system of its own at /mnt, if this machine lets us."""
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
    """A disk that fills up costs no event: they wait in memory, with one warning, and the disk is used again later."""
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
    """Events wait in memory, with one warning."""
    environment = {**os.environ, **alive, "TS_AUTOTRACK_OUTBOX": "/mnt/outbox"}
    code = ends.REPORT + READ_ONLY
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
    """An error of the disk in the middle of a commit costs no event."""
    code = f"import sys; sys.argv = ['', {inspector.endpoint!r}]\n" + LIMITED
    done = run_python(code, **dead, **setting)
    assert done.stdout == "False 1000\nTrue 1000\n", done.stderr
    assert done.stderr.count("does not work") == 1
    assert len({item["context"]["event_id"] for item in inspector.items()}) == 1000


@pytest.mark.parametrize("obstacle", ["file", "broken link"])
def test_outbox_that_cannot_be_made(inspector: Inspector, alive: dict[str, str], outbox: Path, obstacle: str) -> None:
    """Where there can be no outbox events wait in memory, with one warning, and arrive."""
    if obstacle == "file":
        outbox.write_text("")
    else:
        outbox.symlink_to("/nowhere/at/all")
    done = run_python(f"{APP}ten(); ts_autotrack.flush(5)", **alive)
    assert done.returncode == 0
    assert done.stderr.count("does not work") == 1
    assert numbers(inspector) == list(range(-1, 10))


INTERRUPTED = """
armed, interrupted, n = False, [], 0
def handler(*_):
    if armed: raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
while len(interrupted) < 300:
    try:
        armed = True
        with user_context("u", group_id="g"):
            while True: work(n); n += 1
    except KeyboardInterrupt:
        armed = False
        interrupted.append(n)  # whether it was tracked nobody knows
        n += 1
signal.setitimer(signal.ITIMER_REAL, 0)
thread = threading.Thread(target=ten, args=(10**6,)); thread.start(); thread.join(10)
print([n, interrupted, thread.is_alive()], flush=True)
os._exit(0)
"""


@pytest.mark.skipif(
    sys.gettrace() is not None, reason="interrupts hit whoever measures coverage, too, and break its files"
)
def test_interrupts_in_the_middle_of_a_commit(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path, guarantee: Any
) -> None:
    """Ctrl-C and signal handlers that raise, at any moment of the call, lose no event whose call has returned."""
    app = OUTAGE.replace("work(-1)", "work(10**9)")
    done = run_python(app + INTERRUPTED, **dead, **EACH)
    assert "set aside" not in done.stderr
    last, interrupted, hangs = ast.literal_eval(done.stdout)
    assert not hangs
    succeed(alive, outbox)
    arrived = [n for n in numbers(inspector) if n < 10**6]
    guarantee(
        "Ctrl-C in the middle of a commit",
        "outbox",
        set(range(last)) - set(interrupted),
        [n for n in arrived if n not in interrupted],
        counted=False,
    )
    assert len(arrived) == len(set(arrived))


@pytest.mark.parametrize("setting", [{}, EACH], ids=["batch", "event"])
@pytest.mark.parametrize("order", ["ten(); unlink(); ten(10)", "ten(); ten(10); unlink()", "unlink(); ten(); ten(10)"])
def test_disk_that_works_again_gets_all_that_waited(  # noqa: PLR0913 - fixtures
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    order: str,
    setting: dict[str, str],
) -> None:
    """Once there can be an outbox, everything that had to wait in memory is written, what is being sent included."""
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


def leave_behind(dead: dict[str, str], outbox: Path) -> Path:
    """Have a killed process leave eleven events; return its file."""
    run_python(f"{OUTAGE}ten(){KEPT}{KILL}", **dead)
    (path,) = events_files(outbox)
    return path


@pytest.mark.parametrize("damage", [b"this is no database" * 1000, b""])
def test_corrupt_file_is_set_aside(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path, damage: bytes
) -> None:
    """A file that cannot be read is renamed, never deleted, and nobody stumbles over it again."""
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
        assert path.exists()  # its owner may just be making it
        os.utime(path, (0, 0))
        assert run_python(SUCCESSOR, **alive).stderr == ""
        assert not path.exists()
    assert len(inspector.items(event_name="successor")) == 2


def test_file_that_breaks_while_it_is_in_use(
    inspector: Inspector, dead: dict[str, str], accounts: Path, outbox: Path
) -> None:
    """A file that is destroyed under a process's feet is set aside; what it still has arrives, the rest is counted."""
    code = f"""{OUTAGE}
import glob, sqlite3
with user_context("u", group_id="g"):
    for n in range(30000): work(n)
kept()
for path in glob.glob({str(outbox)!r} + "/*.events*"):
    with open(path, "r+b") as file:
        file.seek(0)
        file.write(b"\\xff" * os.path.getsize(path))
ts_autotrack.configure(endpoint={inspector.endpoint!r})
ts_autotrack.flush(5)
with user_context("u", group_id="g"):
    for n in range(30000, 30010): work(n)
ts_autotrack.flush(5)
"""
    done = run_python(code, **dead)
    assert done.returncode == 0
    assert "it was set aside" in done.stderr
    assert list(outbox.glob("*.corrupt"))
    arrived = numbers(inspector)
    account = json.loads(next(accounts.iterdir()).read_text())
    assert set(arrived) >= set(range(30000, 30010))
    assert account["accepted"] == 30011
    assert len(arrived) + account["dropped"]["outbox_corrupt"] == 30011


def test_outbox_that_is_deleted_while_it_is_in_use(inspector: Inspector, dead: dict[str, str], outbox: Path) -> None:
    """What was in a deleted file still arrives if the process lasts; new events go to a new file."""
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


def test_outbox_that_is_deleted_while_other_files_are_being_sent(
    inspector: Inspector, dead: dict[str, str], outbox: Path
) -> None:
    """A deleted file comes before what another process has left, which can wait."""
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
    """After a downgrade the files of the later version wait for that."""
    path = leave_behind(dead, outbox)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
    done = run_python(SUCCESSOR, **alive)
    assert done.stderr.count("was written by a later version") == 1
    assert events_files(outbox) == [path]


def test_file_that_somebody_looks_into_is_adopted_later(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path
) -> None:
    """A file that another tool has locked is left to it, and adopted by the next look after that."""
    path = leave_behind(dead, outbox)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        assert run_python(SUCCESSOR, **alive).stdout == "0\n"
    assert succeed(alive, outbox) == 11
    assert numbers(inspector) == list(range(-1, 10))


def test_full_outbox_refuses_the_newest_and_says_so(inspector: Inspector, dead: dict[str, str]) -> None:
    """Past the limit new events are refused and counted; those on disk arrive."""
    code = f"""{OUTAGE}
with user_context("u", group_id="g"):
    for n in range(2000): work(n)
while not ts_autotrack.stats().dropped: time.sleep(0.01)
kept()
ts_autotrack.configure(endpoint={inspector.endpoint!r})
ts_autotrack.flush(5); now = ts_autotrack.stats()
print(now.delivered + now.dropped["outbox_full"], now.pending, 200 < now.delivered < 500)
"""
    done = run_python(code, TS_AUTOTRACK_OUTBOX_BYTES="100000", **dead)
    assert done.stdout == "2001 0 True\n", done.stderr
    assert done.stderr.count("is full (TS_AUTOTRACK_OUTBOX_BYTES=100000)") == 1
    arrived = numbers(inspector)
    assert arrived == list(range(-1, len(arrived) - 1))


def test_quarantine_and_its_commands(  # noqa: PLR0913 - fixtures
    server: ScriptedServer,
    inspector: Inspector,
    alive: dict[str, str],
    outbox: Path,
    cli: Callable[..., str],
    guarantee: Any,
) -> None:
    """Refused items are kept with the server's words; they can be listed, exported, sent again and deleted, live."""
    bad, accepted = {2, 5, 7}, []

    def strict(request: Request) -> Answer:
        numbers = [item["properties"]["n"] for item in request.items]
        if bad.intersection(numbers):
            return Answer(422, b"n is odd")
        accepted.extend(numbers)
        return Answer()

    server.always = strict
    code = f"{APP}ten(); print(ts_autotrack.flush(10), ts_autotrack.stats().rejected, flush=True); sys.stdin.read()"
    environment = {**os.environ, **alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "True 3\n"
        assert f"{outbox}: waiting 0, refused 3\n" in cli("status")
        assert "in use" in cli("status")
        lines = cli("list").splitlines()
        assert [line.split()[0] for line in lines] == ["1", "2", "3"]
        assert all(line.endswith("feature_used  user=u  422: n is odd") for line in lines)
        exported = [json.loads(line) for line in cli("export").splitlines()]
        assert [line["item"]["properties"]["n"] for line in exported] == [2, 5, 7]
        assert {line["reason"] for line in exported} == {"422: n is odd"}
        assert cli("export", "3", "1").count("\n") == 2
        assert "there is no refused item 9" in cli("export", "9", status=1)
        assert "name the ids" in cli("purge", status=2)
        assert cli("purge", "2") == "1 item deleted\n"
        server.always = lambda _: Answer(503)  # else the live process might have sent them before we look
        assert cli("retry") == "2 items wait for a process that uses this outbox\n"
        assert "waiting 2, refused 0" in cli("status")
        bad.clear()  # mended
        server.always = strict
        process.stdin.close()
        process.wait(30)
    guarantee("items refused with 422, the rest", "outbox", {*range(-1, 10)} - {2, 5, 7}, {*accepted} - {2, 7})
    pending = [json.loads(line)["item"]["properties"]["n"] for line in cli("export", "--pending").splitlines()]
    if pending:  # else the live process has adopted and delivered them
        assert pending == [2, 7]
        succeed(alive, outbox)
    assert sorted(accepted + numbers(inspector)) == sorted({*range(-1, 10)} - {5})


def test_commands_without_an_outbox(cli: Callable[..., str]) -> None:
    """A directory that is not there is an error that says so."""
    assert "there is no directory" in cli("status", status=1)


def test_quarantine_that_cannot_be_written(server: ScriptedServer, alive: dict[str, str], outbox: Path) -> None:
    """A quarantine that somebody has locked is waited for, with a warning of its own; the account still closes."""
    outbox.mkdir()
    server.always = lambda _: Answer(400, b"no")
    with contextlib.closing(sqlite3.connect(outbox / "rejected.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        done = run_python(
            APP + "print(ts_autotrack.stats().rejected, len(ts_autotrack.rejected()))",
            **{**alive, "THRIVESTACK_ENDPOINT": server.endpoint},
        )
    assert done.stdout == "1 1\n"
    assert done.stderr.count("rejected.db cannot be written to (database is locked)") == 1
