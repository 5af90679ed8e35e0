"""An outbox in odd company: foreign files, other processes, lasting traffic."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, run_python, wait_until
from tests.faults._outboxes import APP, EACH, KEPT, KILL, OUTAGE, SUCCESSOR, events_files, numbers, succeed
from ts_autotrack.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_python_without_sqlite(inspector: Inspector, alive: dict[str, str]) -> None:
    """Without SQLite, events wait in memory, a warning says so, and the events arrive."""
    done = run_python(f"import sys\nsys.modules['sqlite3'] = sys.modules['_sqlite3'] = None\n{APP}ten()", **alive)
    assert done.returncode == 0
    assert done.stderr.count("this Python has no SQLite") == 1
    assert numbers(inspector) == list(range(-1, 10))


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


def test_busy_outbox_can_be_looked_at(alive: dict[str, str], outbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` and `export` work again and again beside processes which come, write and go."""
    code = APP + "\nwith user_context('u', group_id='g'):\n  for n in range(10**6): work(n); time.sleep(0.0001)"
    busy = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **alive, **setting}) for setting in ({}, EACH)
    ]
    words = ["outbox", "status", "--directory", str(outbox)]
    try:
        wait_until(lambda: len(events_files(outbox)) == 2, "the files of both")
        for _ in range(15):
            assert main(words) == 0
            lines = capsys.readouterr().out.splitlines()[1:]
            assert [line for line in lines if re.search(r"  waiting \d+  \d+ bytes  in use$", line)] == lines
            assert main(["outbox", "export", "--pending", *words[2:]]) == 0
            capsys.readouterr()
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_full_outbox_refuses_the_newest_and_says_so(inspector: Inspector, dead: dict[str, str]) -> None:
    """Past the limit, new events are refused and counted; events on disk arrive."""
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


OWNER = """
import glob, os, sys
import ts_autotrack
from ts_autotrack.cli._main import main
outbox = os.environ["TS_AUTOTRACK_OUTBOX"]
def owned():
    with open("/proc/locks") as file: locks = [line.split() for line in file]
    owners = {lock[5].split(":")[2]: lock[4] for lock in locks if lock[1] == "POSIX"}
    inodes = [os.stat(path).st_ino for path in glob.glob(outbox + "/*.events")]
    return [owners.get(str(inode)) == str(os.getpid()) for inode in inodes]
for n in range(5): ts_autotrack.track("old", {"n": n}, user_id="u", group_id="g")
ts_autotrack.flush(0.5); print(owned())
main(["outbox", "status"]); main(["outbox", "export", "--pending"])
print(owned(), flush=True)
sys.stdin.readline()
print(owned(), flush=True)
sys.stdin.readline()
print(ts_autotrack.flush(20), ts_autotrack.stats().delivered)
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="reads the locks of Linux")
def test_file_has_one_owner(server: ScriptedServer, alive: dict[str, str], cli: Callable[..., str]) -> None:
    """A process owns its file while a request hangs, also after a look at the outbox by the same process."""
    answered = threading.Event()
    server.always = lambda _: Answer(wait=answered)
    environment = {**os.environ, **alive, "THRIVESTACK_ENDPOINT": server.endpoint}
    command = [sys.executable, "-c", OWNER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "[True]\n"
        status = [process.stdout.readline() for _ in range(2)]
        assert "waiting 5" in status[1]
        assert process.stdout.readline() == "[True]\n"
        other = run_python(SUCCESSOR, **alive)  # adopts nothing
        assert other.stdout == "0\n", other.stderr
        assert cli("status").count("in use") == 1
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "[True]\n"
        answered.set()
        output, errors = process.communicate("\n", timeout=30)
    assert output == "True 5\n", errors
    assert errors.count("this process itself has it open") == 1
    assert [item["properties"]["n"] for item in server.items] == list(range(5))


DEAD = """
from ts_autotrack._core.outbox.file import OutboxFile
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (2_000, 2_000))
event = b'{"event_name":"dead","user_id":"u","timestamp":"2024-10-20T15:51:36.514000Z","context":{},"properties":{}}'
for n in range(int(sys.argv[2])):
    file = OutboxFile.create(sys.argv[1], page_size=4096)
    file.append([("/track", event, 1)])
os._exit(0)
"""
FIRST = """
import sys, ts_autotrack
opened, caller = [], __import__("threading").get_ident()
def audit(event, arguments):
    if event in ("open", "sqlite3.connect") and str(arguments[0]).endswith(".events"):
        opened.append(__import__("threading").get_ident())
sys.addaudithook(audit)
ts_autotrack.track("e", user_id="u", group_id="g")
mine = opened.count(caller)
while ts_autotrack.stats().adopted < 120 or not ts_autotrack.flush(1) or ts_autotrack.stats().pending: pass
print(mine, opened.count(caller), len(opened))
"""


def test_many_dead_files_are_opened_once(inspector: Inspector, alive: dict[str, str], outbox: Path) -> None:
    """The sender looks at each file of an ended process once; the caller of an event opens none but its own."""
    outbox.mkdir()
    subprocess.run([sys.executable, "-c", DEAD, outbox, "120"], check=True)
    done = run_python(FIRST, **alive, **EACH)
    mine, all_mine, opened = map(int, done.stdout.split())
    # To create the file, and by SQLite, of which Python 3.10 does not tell.
    assert mine == all_mine == (2 if sys.version_info >= (3, 11) else 1), done.stderr
    assert opened <= 2 + 2 * 120  # the header, and by SQLite
    assert len(inspector.items(event_name="dead")) == 120
    assert events_files(outbox) == []
