"""Ends without exit hooks: with an outbox, the next process delivers the remaining events."""

from __future__ import annotations

import ast
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Answer, run_python, wait_until
from tests.faults._outboxes import APP, EACH, KEPT, KILL, OUTAGE, SUCCESSOR, events_files, numbers, succeed
from tests.faults._programs import REPORT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector, Request, ScriptedServer

pytestmark = pytest.mark.slow


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
def test_next_process_delivers_what_a_dead_one_left(
    inspector: Inspector,
    dead: dict[str, str],
    alive: dict[str, str],
    outbox: Path,
    guarantee: Any,
    name: str,
    end: str,
    setting: dict[str, str],
) -> None:
    """Events on disk arrive once, from the next process; files are private, and gone afterwards."""
    code = f"{OUTAGE}with user_context('u', group_id='g'):\n  for n in range(100): work(n)\npass{end}"
    run_python(code, TS_AUTOTRACK_EXIT_TIMEOUT="0.2", **dead, **setting)
    assert stat.S_IMODE(outbox.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in outbox.iterdir()} == {0o600}
    assert succeed(alive, outbox) == 101
    guarantee(name, "outbox", range(-1, 100), numbers(inspector))


def test_batch_is_on_disk_within_50_ms(dead: dict[str, str]) -> None:
    """Events are on disk within 50 ms. Events tracked right after a commit wait the longest."""
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
    """SIGKILL at any moment of tracking and delivery, with event durability, loses no tracked event."""
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
    # Each process may also have tracked a last event without printing its number.
    about_to_say = {n for n in arrived if n not in said and (n - 1 in said or n % 10**6 == 0)}
    guarantee("SIGKILL at any moment", "outbox", said | about_to_say, arrived, processes=0, counted=False, twice=True)


def test_many_processes_share_an_outbox_and_die(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], accounts: Path, outbox: Path, guarantee: Any
) -> None:
    """Eight processes are killed at once; three successors at once adopt each file once."""
    code = OUTAGE + f"ten(int(sys.argv[1])){KEPT}{KILL}"
    environment = {**os.environ, **dead}
    crowd = [subprocess.Popen([sys.executable, "-c", code, str(n)], env=environment) for n in range(0, 80, 10)]
    for process in crowd:
        assert process.wait(30) == -signal.SIGKILL
    assert 1 <= len(events_files(outbox)) <= 8  # a process that was still running may have adopted files
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


JOBS = """
import ts_autotrack
for n in range(200):
    if (child := os.fork()) == 0:
        ts_autotrack.track("job", {"n": n}, user_id="u", group_id="g")
        report()
        os.kill(os.getpid(), 9)  # measuring coverage makes `os._exit` wait: the job would take over files
    os.waitpid(child, 0)
"""


def test_short_lived_processes(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path, guarantee: Any
) -> None:
    """The process that starts after 200 short jobs delivers all of their events at once, and leaves no file."""
    run_python(REPORT + JOBS, **dead, **EACH)
    assert len(events_files(outbox)) > 50  # few jobs live long enough to take over files of earlier ones
    succeed(alive, outbox)
    arrived = [item["properties"]["n"] for item in inspector.items(event_name="job")]
    guarantee("200 processes of one event each", "outbox", range(200), arrived, processes=200, twice=True)


def test_a_live_process_adopts_what_another_leaves(
    inspector: Inspector, dead: dict[str, str], alive: dict[str, str], outbox: Path
) -> None:
    """A running, idle process delivers the events left by a killed process."""
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
    """A forked child, with or without events of its own and with any kind of end, leaves the parent's events on disk
    alone.
    """
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
    """While a request hangs, later events are on disk within 50 ms all the same."""
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
        interrupted.append(n)  # the last event may or may not be tracked
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
    """Ctrl-C and raising signal handlers, at any moment of a call, lose no event whose call has returned."""
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
