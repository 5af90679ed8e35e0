"""Ends of real processes: delivery, exit status and time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, ScriptedServer, run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector


TEN_EVENTS = """
from ts_autotrack import track_feature, user_context
@track_feature("f", capture=["n"])
def f(n): pass
with user_context("u", group_id="g"):
    for n in range(10): f(n)
"""


def test_a_script_that_just_ends_loses_nothing(inspector: Inspector) -> None:
    """A script needs no flush: the exit delivers the remaining events, quickly."""
    done = run_python(TEN_EVENTS, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [item["properties"]["n"] for item in inspector.items()] == list(range(10))


@pytest.mark.parametrize("end", ["raise LookupError('of the app')", "import sys; sys.exit(3)"])
def test_a_script_that_fails_loses_nothing(inspector: Inspector, end: str) -> None:
    """An unhandled exception or an exit status goes through unchanged, and the events arrive."""
    done = run_python(TEN_EVENTS + end, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.returncode == (3 if "exit" in end else 1)
    assert len(inspector.items()) == 10


def test_exit_with_a_dead_server_is_over_in_time(dead_endpoint: str) -> None:
    """EXIT_TIMEOUT bounds the exit, and the number of lost events is logged."""
    code = "import time; began = time.monotonic()\nimport atexit\n" + (
        "atexit.register(lambda: print(f'{time.monotonic() - ended:.2f}'))\n"
        + TEN_EVENTS
        + "ended = time.monotonic()\n"
    )
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint)
    assert done.returncode == 0
    assert 0.9 < float(done.stdout) < 3  # retried while there was time
    assert "10 events were not delivered in time; they are lost with the process" in done.stderr


def test_exit_with_a_server_that_never_answers_is_over_in_time(server: ScriptedServer) -> None:
    """A hanging request does not hold up the exit."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    began = time.monotonic()
    done = run_python(TEN_EVENTS, THRIVESTACK_ENDPOINT=server.endpoint, TS_AUTOTRACK_EXIT_TIMEOUT="0.5")
    gate.set()
    assert time.monotonic() - began < 5
    assert "10 events were not delivered in time" in done.stderr


def test_event_after_the_last_thread_could_start(inspector: Inspector) -> None:
    """An event tracked in an exit hook, when the interpreter starts no more threads, still arrives."""
    code = """
import atexit
import ts_autotrack
atexit.register(lambda: print(ts_autotrack.shutdown(5), ts_autotrack.stats().delivered))
atexit.register(lambda: ts_autotrack.track("late", user_id="u"))
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 1\n", done.stderr
    assert [item["event_name"] for item in inspector.items()] == ["late"]


def test_first_event_of_all_in_an_exit_hook(inspector: Inspector) -> None:
    """The first event of a process arrives even if an exit hook tracks it."""
    code = "import atexit, ts_autotrack\natexit.register(lambda: ts_autotrack.track('late', user_id='u', group_id='g'))"
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stderr == ""
    assert [item["event_name"] for item in inspector.items()] == ["late"]


LATE_HOOKS = """
import atexit
def late():
    for n in range(4): ts_autotrack.track("late", user_id="u")
atexit.register(late)  # runs after ours
import ts_autotrack
ts_autotrack.track("e", user_id="u")
"""
UVICORN = """
import os, signal, threading, ts_autotrack, uvicorn
ts_autotrack.configure()
async def app(scope, receive, send): ...
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        ts_autotrack.track("e", user_id="u")
        os.kill(os.getpid(), signal.SIGTERM)
Server(uvicorn.Config(app, port=0, lifespan="off", log_level="critical")).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize("code", [LATE_HOOKS, UVICORN], ids=["late exit hooks", "uvicorn"])
@pytest.mark.parametrize("kept", ["memory", "outbox"])
def test_dead_server_holds_up_the_end_once(dead_endpoint: str, tmp_path: Path, code: str, kept: str) -> None:
    """All waits at the end of a process together are over within EXIT_TIMEOUT."""
    outbox = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox")} if kept == "outbox" else {}
    took = []
    for timeout in (0, 3):
        began = time.monotonic()
        done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint, TS_AUTOTRACK_EXIT_TIMEOUT=str(timeout), **outbox)
        took.append(time.monotonic() - began)
        assert ("lost with the process" in done.stderr) == (kept == "memory"), done.stderr
    assert took[1] - took[0] < 2 * 3 - 0.5
    if kept == "outbox":
        status = run_python("from ts_autotrack.cli import main; main(['outbox', 'status'])", **outbox)
        assert f"waiting {10 if code == LATE_HOOKS else 2}, refused 0" in status.stdout


NO_THREAD = """
import os, signal, threading, time
def refuse(self): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
from ts_autotrack import track
def three(*_):
    for n in range(3): track("e", user_id="u")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        "three(); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=three); p.start(); p.join()",
    ],
    ids=["SIGTERM", "Process"],
)
def test_end_without_exit_hooks_where_no_thread_can_be_started(inspector: Inspector, end: str) -> None:
    """Ends without exit hooks deliver, too."""
    done = run_python(NO_THREAD + end, THRIVESTACK_ENDPOINT=inspector.endpoint, TS_AUTOTRACK_EXIT_TIMEOUT="15")
    assert len(inspector.items()) == 3, done.stderr
    assert "not delivered" not in done.stderr
