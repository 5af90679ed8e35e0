"""SIGTERM at bad moments: during forks and locks, in containers, beside slow servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Answer, run_python, wait_until
from tests.faults._programs import APP, REPORT, numbers
from ts_autotrack._core.delivery import drainer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector, ScriptedServer


pytestmark = pytest.mark.slow


def test_sigterm_of_a_gevent_process_that_is_idle(inspector: Inspector, target: dict[str, str]) -> None:
    """A signal in gevent's hub, which must not wait, makes a greenlet deliver; the exit status stays."""
    code = (
        "from gevent import monkey; monkey.patch_all()\nimport gevent\n"
        + APP
        + """
ten()
gevent.get_hub().loop.timer(0.2).start(os.kill, os.getpid(), signal.SIGTERM)
gevent.sleep(20)
"""
    )
    done = run_python(code, **target)
    assert done.returncode == -15, done.stderr
    assert "Traceback" not in done.stderr
    assert numbers(inspector) == list(range(10))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_that_is_handled_in_c_is_left_alone(inspector: Inspector, target: dict[str, str]) -> None:
    """A handler unknown to Python, such as faulthandler's, stays in place."""
    code = "import faulthandler, signal\nfaulthandler.register(signal.SIGTERM)\n" + APP
    done = run_python(code + "ten(); os.kill(os.getpid(), signal.SIGTERM); print('lives')", **target)
    assert (done.returncode, done.stdout) == (0, "lives\n")
    assert "most recent call first" in done.stderr
    assert numbers(inspector) == list(range(10))


def test_nothing_is_forked_while_sigterm_drains(server: ScriptedServer, environment: dict[str, str]) -> None:
    """No child is forked while SIGTERM drains: a pool replacing its terminated workers would leave orphans behind."""
    code = (
        APP.replace("work(-1); ts_autotrack.flush(5)", "")
        + """
ten()
def fork():
    while not ts_autotrack._core.client.client.shutdown.terminating: time.sleep(0.01)
    time.sleep(0.2)  # draining takes a second
    if os.fork() == 0:
        os.write(1, b"forked")
        os._exit(0)
threading.Thread(target=fork, daemon=True).start()
os.kill(os.getpid(), signal.SIGTERM); time.sleep(20)
"""
    )
    server.always = lambda _: Answer(503)
    target = {**environment, "THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "1"}
    done = run_python(code, **target)
    assert (done.returncode, done.stdout) == (-15, "")
    assert "they are lost with the process" in done.stderr


def test_sigterm_in_the_middle_of_a_fork(inspector: Inspector, target: dict[str, str]) -> None:
    """Locks held for the fork are released, so the remaining events can be delivered."""
    code = APP + (
        "ten()\nos.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "os.register_at_fork(before=lambda: None)\nos.fork()"
    )
    done = run_python(code, **target)
    assert done.returncode == -15, done.stderr
    assert numbers(inspector) == list(range(10))


def container() -> list[str]:
    """Return a command to run Python as the first process of a container, if this machine permits."""
    command = ["unshare", "-r", "-p", "-f", sys.executable, "-c"]
    if shutil.which("unshare") is None or subprocess.run([*command, ""], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a process the first of its own")
    return command


def test_sigterm_of_the_first_process_of_a_container(inspector: Inspector, target: dict[str, str]) -> None:
    """The system ignores SIGTERM for process 1: each signal delivers all events, and the process goes on as before."""
    code = f"""{APP}
assert os.getpid() == 1
for turn in (0, 10):
    ten(turn)
    os.kill(1, signal.SIGTERM)
    print(ts_autotrack.stats().pending)
    began = time.monotonic()
    child = os.fork()
    if not child: os._exit(0)
    os.waitpid(child, 0)
    assert time.monotonic() - began < 3
"""
    done = subprocess.run(
        [*container(), code], env={**os.environ, **target}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "0\n0\n"), done.stderr
    assert numbers(inspector) == list(range(20))


GOES_ON = {
    "tracks": """
with user_context("u", group_id="g"):
    for n in range(10, 10**6): work(n); print(n, flush=True); time.sleep(0.001)
""",
    "blocks the signal": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\nwhile True: time.sleep(0.01)",
    "is traced": """
null = os.open(os.devnull, os.O_WRONLY)
def trace(*_): os.write(null, b"x"); return trace
sys.settrace(trace)
while True: time.sleep(0.01)
""",
}


@pytest.mark.parametrize("main", GOES_ON)
def test_sigterm_beside_a_slow_server(server: ScriptedServer, environment: dict[str, str], main: str) -> None:
    """SIGTERM takes at most two requests, for any activity of the main thread; all events tracked by then arrive."""

    def slow(_: object) -> Answer:
        threading.Event().wait(0.3)
        return Answer()

    server.always = slow
    code = f"{APP}ten(); print(9, flush=True)\n{GOES_ON[main]}"
    target = {**environment, "THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "20"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **target}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        said = int(process.stdout.readline())
        wait_until(lambda: server.requests, "the first request")
        began = time.monotonic()
        process.terminate()
        said = max([said, *map(int, process.stdout.read().split())])
        assert process.wait(20) == -15
        assert time.monotonic() - began < 5
    arrived = [item["properties"]["n"] for request in server.requests for item in request.items]
    assert arrived == list(range(len(arrived)))
    assert len(arrived) > said


def test_sigterm_that_failed_was_not_the_end(
    server: ScriptedServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """If the process survives a SIGTERM, the next SIGTERM waits for all events tracked by then."""
    mended = tmp_path / "mended"
    server.always = lambda _: Answer(200 if mended.exists() else 503)
    code = f"""{APP}
ten(); os.kill(1, signal.SIGTERM); print(ts_autotrack.stats().pending)
open({str(mended)!r}, "w").close()
ts_autotrack.configure(exit_timeout=15)
for start in range(10, 2000, 10): ten(start)  # more than go out together with the failed events
os.kill(1, signal.SIGTERM); print(ts_autotrack.stats().pending)
"""
    target = {**environment, "THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "0.5"}
    done = subprocess.run(
        [*container(), code], env={**os.environ, **target}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "10\n0\n"), done.stderr
    assert "10 events were not delivered in time; they stay queued" in done.stderr


HELD_LOCKS = {
    "log handler": """
import logging
class Handler(logging.StreamHandler):
    def emit(self, record):  # the logging thread holds the handler's lock
        if record.getMessage() == "now": terminate()
        super().emit(record)
logging.basicConfig(handlers=[Handler()], level=logging.WARNING)
track("first", user_id="u", group_id="g"); ts_autotrack.flush(15)
track("nobody's")  # makes the sender log a warning
ten()
logging.warning("now")
""",
    "import": """
class Finder:
    def find_spec(name, path, target=None):
        if name == "unheard_of":
            sys.meta_path.remove(Finder)
            ten()
            terminate()
sys.meta_path.insert(0, Finder)
try: import unheard_of
except ImportError: pass
""",
    "thread's start": """
def profile(frame, *_):
    if frame.f_code is threading.Thread.start.__code__:
        sys.setprofile(None)
        terminate()
sys.setprofile(profile)
ten()
""",
}


@pytest.mark.parametrize("lock", HELD_LOCKS)
def test_sigterm_while_the_main_thread_holds_a_lock(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str, lock: str
) -> None:
    """The main thread first releases the lock needed by delivery; neither the end nor the events are held up."""
    code = f"""{REPORT}
import sys, threading, time
import ts_autotrack
from ts_autotrack import track
ts_autotrack.configure(flush_interval=30)
def terminate(): print(time.time(), flush=True); os.kill(os.getpid(), signal.SIGTERM)
def ten():
    for n in range(10): track("e", {{"n": n}}, user_id="u", group_id="g")
{HELD_LOCKS[lock]}
time.sleep(30)"""
    done = run_python(code, **target)
    assert done.returncode == -15, done.stderr
    assert time.time() - float(done.stdout) < 10
    arrived = [item["properties"]["n"] for item in inspector.items(event_name="e")]
    least = 10 if lock in ("log handler", "import") else 1  # other locks: the signal comes with the first event
    guarantee(
        "SIGTERM while the main thread holds a lock", kept, range(max(least, len(arrived))), arrived, counted=False
    )


def test_sigterm_while_other_threads_track(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str
) -> None:
    """The threads of a server go on during the signal handler's wait: all events of calls that returned arrive."""
    code = f"""{REPORT}
import threading, time
import ts_autotrack
from ts_autotrack import track
ts_autotrack.configure()
def serve(first):
    for n in range(first, 10**9, 4):
        track("e", {{"n": n}}, user_id="u", group_id="g")
        os.write(1, b"%d\\n" % n)
        time.sleep(0.001)
for first in range(4): threading.Thread(target=serve, args=(first,), daemon=True).start()
time.sleep(0.1)
os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"""
    done = run_python(code, **target)
    assert done.returncode == -15, done.stderr
    arrived = numbers(inspector)
    assert arrived
    guarantee(
        "SIGTERM while other threads track", kept, {*map(int, done.stdout.split()), *arrived}, arrived, counted=False
    )


@pytest.mark.parametrize(
    ("durability", "then", "least"), [("batch", "ten(); watch()", 10), ("event", "watch(); ten()", 1)]
)
def test_sigterm_while_the_main_thread_uses_the_outbox(
    inspector: Inspector, target: dict[str, str], tmp_path: Path, durability: str, then: str, least: int
) -> None:
    """SIGTERM during an outbox write of the main thread delivers all events first. The main thread writes at its end,
    and with durability=event in every call.
    """
    code = f"""{APP}
def at(frame, *_):
    if frame.f_code.co_filename == {drainer.__file__!r}:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)
def watch(): sys.setprofile(at)
{then}"""
    variables = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "TS_AUTOTRACK_DURABILITY": durability}
    done = run_python(code, **target, **variables)
    assert done.returncode == -15, done.stderr
    assert "not delivered" not in done.stderr
    arrived = numbers(inspector)
    assert arrived == list(range(max(least, len(arrived))))
