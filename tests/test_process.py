"""Real processes: how they begin, fork and end."""

from __future__ import annotations

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
    import threading  # noqa: PLC0415

    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    began = time.monotonic()
    done = run_python(TEN_EVENTS, THRIVESTACK_ENDPOINT=server.endpoint, TS_AUTOTRACK_EXIT_TIMEOUT="0.5")
    gate.set()
    assert time.monotonic() - began < 5
    assert "10 events were not delivered in time" in done.stderr


def test_forked_child_sends_its_own_events_and_not_its_parents(inspector: Inspector) -> None:
    """The parent sends events pending at a fork, once; parent and child go on with ids of their own."""
    code = """
import os, sys
from ts_autotrack import track, flush, stats, configure
configure(flush_interval=30)
track("first", user_id="u"); flush(5)
for n in range(5): track("before", user_id="u")
child = os.fork()
for n in range(3): track("child" if child == 0 else "parent", user_id="u")
if child == 0:
    assert flush(5)
    account = stats()
    os._exit(0 if (account.accepted, account.delivered) == (3, 3) else 1)
_, status = os.waitpid(child, 0)
assert flush(5)
print(status, *stats()[:3], stats().dropped)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "0 9 9 0 {}\n", done.stderr
    items = inspector.items()
    assert sorted(item["event_name"] for item in items) == ["before"] * 5 + ["child"] * 3 + ["first"] + ["parent"] * 3
    assert len({item["context"]["event_id"] for item in items}) == 12


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


def test_shutdown_and_flush_while_the_first_event_is_being_taken(inspector: Inspector) -> None:
    """At any moment of the first event, shutdown takes effect, nothing is sent twice, and flush waits for the event."""
    code = """
import sys, threading, time
import ts_autotrack
sys.setswitchinterval(1e-6)
how, pause = sys.argv[1], float(sys.argv[2])
thread = threading.Thread(target=lambda: ts_autotrack.track("e", user_id="u", group_id="g"))
thread.start()
time.sleep(pause)
settled = ts_autotrack.shutdown(5) if how == "shutdown" else ts_autotrack.flush(5)
thread.join()
settled = ts_autotrack.flush(5) and settled
now = ts_autotrack.stats()
print(settled, now.accepted, now.delivered + sum(now.dropped.values()))
"""
    for how in ("shutdown", "flush"):
        for pause in (0, 0.001, 0.002, 0.004, 0.008, 0.016):
            setting = f"import sys; sys.argv = ['', {how!r}, '{pause}']\n"
            done = run_python(setting + code, THRIVESTACK_ENDPOINT=inspector.endpoint)
            assert done.stdout == "True 1 1\n", (how, pause, done.stdout, done.stderr)
    ids = [item["context"]["event_id"] for item in inspector.items()]
    assert len(ids) == len(set(ids)) >= 6


def test_configure_after_a_failed_shutdown_takes_over(inspector: Inspector, dead_endpoint: str) -> None:
    """Events left by a failed shutdown are delivered once the settings are mended."""
    code = f"""
import ts_autotrack
ts_autotrack.track("e", user_id="u", group_id="g")
print(ts_autotrack.shutdown(0.2))
ts_autotrack.configure(endpoint={inspector.endpoint!r})
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint)
    assert done.stdout == "False\nTrue 1\n", done.stderr


def test_no_thread_can_be_started(inspector: Inspector) -> None:
    """If no thread can be started, events are kept, and the end of the process delivers them."""
    code = """
import threading
def refuse(self): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
import ts_autotrack
from ts_autotrack import track, flush, stats, shutdown
for n in range(3): track("e", user_id="u")
print(flush(0.1), stats().pending, shutdown(5), stats().delivered)
ts_autotrack.configure(api_key="again")
track("e", user_id="u")
print(shutdown(5), stats().delivered, stats().dropped)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "False 3 True 3\nTrue 4 {}\n", done.stderr
    assert done.stderr.count("no thread can be started") == 1


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


def test_start_that_fails_is_tried_again(inspector: Inspector) -> None:
    """If the start fails once, the event is kept, and the next event tries again."""
    code = """
import threading
start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]
def flaky(self):
    if failures: raise failures.pop()
    start(self)
threading.Thread.start = flaky
import ts_autotrack
ts_autotrack.track("first", user_id="u")
ts_autotrack.track("second", user_id="u")
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 2\n", done.stderr


def test_events_tracked_while_the_thread_is_being_started(inspector: Inspector) -> None:
    """An event tracked while the first event starts the thread is delivered, too."""
    code = """
import threading
start = threading.Thread.start
def slow(self):
    ts_autotrack.track("meanwhile", user_id="u")
    start(self)
threading.Thread.start = slow
import ts_autotrack
ts_autotrack.track("first", user_id="u")
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 2\n", done.stderr


def test_settings_that_cannot_be_read_are_tried_again(inspector: Inspector) -> None:
    """If reading the settings fails unexpectedly, the event is kept and the application goes on."""
    code = """
import os, io, builtins
real, failures = builtins.open, [MemoryError("no luck")]
def flaky(path, *args):
    if failures and str(path).endswith("pyproject.toml"): raise failures.pop()
    return real(path, *args)
builtins.open = flaky
import ts_autotrack
from ts_autotrack._core import diagnostics
ts_autotrack.track("first", user_id="u")
ts_autotrack.track("second", user_id="u")
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered, diagnostics.faults.read())
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 2 1\n", done.stderr
