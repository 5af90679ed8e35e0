"""Rare ends: events in the last moment, forks at bad moments, threads which outlive their process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, run_python
from tests.faults._programs import APP, REPORT, numbers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector, ScriptedServer


pytestmark = pytest.mark.slow


FIRST = """
import os, sys, threading, time
import ts_autotrack
from ts_autotrack import configure, shutdown, track
{before}
threading.Thread(target=track, args=("first",), kwargs={{"user_id": "u", "group_id": "g"}}, daemon=True).start()
time.sleep({pause})
for n in range(10): track("e", {{"n": n}}, user_id="u", group_id="g")
{end}
"""


@pytest.mark.parametrize(
    ("before", "end"),
    [("", ""), ("", "shutdown()"), ("", "shutdown(15)"), ("configure()", "os.kill(os.getpid(), 15); time.sleep(15)")],
    ids=["exit", "shutdown", "shutdown with a timeout", "SIGTERM"],
)
def test_end_while_another_thread_is_at_its_first_event(
    inspector: Inspector, target: dict[str, str], before: str, end: str
) -> None:
    """An end shortly after the first event, tracked by any thread, delivers all events."""
    for pause in (0, 0.005, 0.01, 0.02):
        inspector.forget()
        done = run_python(REPORT + FIRST.format(before=before, pause=pause, end=end), **target)
        assert sorted(item["properties"]["n"] for item in inspector.items(event_name="e")) == list(range(10)), (
            pause,
            done.stderr,
        )


FORKS = """
import os, threading, time
import ts_autotrack
from ts_autotrack import flush, stats, track
os.register_at_fork(after_in_parent=lambda: os.stat("/"))  # a hook which releases the GIL for a moment
track("first", user_id="u", group_id="g")
assert flush(10)
slowest, until = [0], time.monotonic() + 3
def forks():
    while time.monotonic() < until:
        began = time.monotonic()
        if (child := os.fork()) == 0: os._exit(0)
        os.waitpid(child, 0)
        slowest.append(time.monotonic() - began)
threads = [threading.Thread(target=forks) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
track("last", user_id="u", group_id="g")
print(flush(10), stats().delivered, max(slowest) < 3)
"""


def test_threads_that_fork_at_once(target: dict[str, str]) -> None:
    """Each forking thread releases its own locks and no others; delivery goes on."""
    done = run_python(REPORT + FORKS, **target)
    assert done.stdout == "True 2 True\n"
    assert "Exception ignored" not in done.stderr


FORK_DURING_IMPORTS = """
import os, threading, time
import ts_autotrack
def tracks(): [ts_autotrack.track("e", user_id="u", group_id="g") for n in range(300)]
thread = threading.Thread(target=tracks)
thread.start()
for _ in range(8):
    if (child := os.fork()) == 0: os._exit(0)
    os.waitpid(child, 0); time.sleep(0.004)
thread.join()
"""


def test_fork_while_another_thread_is_at_its_first_event(inspector: Inspector, target: dict[str, str]) -> None:
    """A fork during another thread's first event prints nothing on standard error and loses no event."""
    for _ in range(5):
        done = run_python(REPORT + FORK_DURING_IMPORTS, **target)
        assert done.returncode == 0, done.stderr
        assert "Exception ignored" not in done.stderr
    assert len(inspector.get(limit=10_000)) == 1_500


FORK_IN_A_THREAD = """
import os, sys, threading, time
import ts_autotrack
ts_autotrack.track("parent", user_id="u", group_id="g"); ts_autotrack.flush(10)
def fork():
    child = os.fork()
    if child == 0:
        ts_autotrack.track("child", user_id="u", group_id="g")
        return  # the process ends with this thread, its only thread
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline: os.kill(child, 9)
        time.sleep(0.01)
    print(ended[1])
thread = threading.Thread(target=fork); thread.start(); thread.join()
"""


@pytest.mark.parametrize("durability", ["", "batch", "event"])
def test_child_that_a_thread_has_forked_ends(
    inspector: Inspector, target: dict[str, str], dead_endpoint: str, tmp_path: Path, durability: str
) -> None:
    """The library's threads do not keep the child alive, and deliver the remaining events before the child ends."""
    if durability:
        target = {**target, "TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "TS_AUTOTRACK_DURABILITY": durability}
    assert run_python(FORK_IN_A_THREAD, **target).stdout == "0\n"
    assert sorted(item["event_name"] for item in inspector.items()) == ["child", "parent"]
    dead = {**target, "THRIVESTACK_ENDPOINT": dead_endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "0.5"}
    assert run_python(FORK_IN_A_THREAD.replace("flush(10)", "flush(0.1)"), **dead).stdout == "0\n"


THREAD_THAT_OUTLIVES = """
def late():
    import time
    threading.main_thread().join(0.5)
    ten(10)
def child(): ten(0); threading.Thread(target=late).start()
if __name__ == "__main__":
    import multiprocessing
    process = multiprocessing.get_context({method!r}).Process(target=child)
    process.start(); process.join(); assert process.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_thread_that_outlives_the_main_function_of_a_child(
    inspector: Inspector, target: dict[str, str], tmp_path: Path, method: str
) -> None:
    """Events tracked after the child's finalizers have run arrive, too."""
    script = tmp_path / "app.py"
    script.write_text(APP + THREAD_THAT_OUTLIVES.format(method=method))
    subprocess.run([sys.executable, str(script)], env={**os.environ, **target}, check=True, timeout=60)
    assert numbers(inspector) == list(range(20))


@pytest.mark.parametrize("ends_before", ["", "ts_autotrack.shutdown()"])
def test_exit_hooks_that_run_after_ours(inspector: Inspector, target: dict[str, str], ends_before: str) -> None:
    """An event of a hook registered before the import arrives; after an explicit shutdown the event is dropped."""
    code = f"""
import atexit
def late(): ts_autotrack.track("e", user_id="u", group_id="g")
atexit.register(late)
atexit.register(late)
{REPORT.replace("atexit.register(report)", "")}
import ts_autotrack
ts_autotrack.track("first", user_id="u", group_id="g")
{ends_before}
atexit.unregister(late); atexit.register(late)
atexit._run_exitfuncs()
print(ts_autotrack.stats().delivered, ts_autotrack.stats().dropped)
"""
    code = code.replace("atexit.unregister(late); atexit.register(late)\n", "")
    done = run_python(code, **target)
    assert done.stdout == ("1 {'shutdown': 2}\n" if ends_before else "3 {}\n"), done.stderr
    assert len(inspector.items()) == (1 if ends_before else 3)


def test_sender_that_something_has_killed_is_replaced(inspector: Inspector, target: dict[str, str]) -> None:
    """Killing all greenlets kills the library's greenlet, too; the next event starts another, and no event is lost."""
    code = (
        "from gevent import monkey; monkey.patch_all()\nimport gc, gevent, greenlet\n"
        + APP
        + """
ten()
gevent.killall([o for o in gc.get_objects() if isinstance(o, gevent.Greenlet)])
ten(10)
print(ts_autotrack.flush(10), ts_autotrack.stats().pending)
"""
    )
    done = run_python(code, **target)
    assert done.stdout == "True 0\n", done.stderr
    assert numbers(inspector) == list(range(20))


def test_shutdown_that_failed_was_not_the_end(server: ScriptedServer, environment: dict[str, str]) -> None:
    """After a failed shutdown and a `configure`, the end of the process has its own EXIT_TIMEOUT."""
    server.always = lambda _: Answer(503)
    code = f"""{APP}ten(); print(ts_autotrack.shutdown(), flush=True)
sys.stdin.readline()
ts_autotrack.configure(); ten(10)"""
    target = {**environment, "THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **target}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"False\n"
        server.always = None
        before = len(server.requests)
        process.communicate(b"\n", timeout=20)
    arrived = [item["properties"]["n"] for request in server.requests[before:] for item in request.items]
    assert arrived == list(range(20))


def test_exit_does_not_wait_for_a_server_that_cannot_be_asked_in_time(
    server: ScriptedServer, environment: dict[str, str]
) -> None:
    """A server which asks for a minute's pause does not delay the end beyond its two seconds."""
    server.always = lambda _: Answer(429, headers={"Retry-After": "60"})
    code = APP + "ten(); began = time.monotonic(); print(ts_autotrack.shutdown(10), time.monotonic() - began < 5)"
    began = time.monotonic()
    done = run_python(code.replace("flush(5)", "flush(0.5)"), THRIVESTACK_ENDPOINT=server.endpoint, **environment)
    assert done.stdout == "False True\n", done.stderr
    assert time.monotonic() - began < 10


def test_no_thread_and_an_outbox(inspector: Inspector, environment: dict[str, str], tmp_path: Path) -> None:
    """If no thread can be started, callers write their events into the outbox, and a crash loses no event."""
    code = f"""
import threading
def refuse(self): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
{APP.replace("work(-1); ts_autotrack.flush(5)", "")}
ten()
os._exit(0)
"""
    outbox = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "THRIVESTACK_ENDPOINT": inspector.endpoint}
    assert run_python(code, **environment, **outbox).returncode == 0
    assert inspector.items() == []
    run_python(APP + "assert ts_autotrack.stats().adopted == 10", **environment, **outbox)
    assert numbers(inspector) == list(range(10))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="orjson cannot be loaded there any more")
def test_subinterpreter(inspector: Inspector, target: dict[str, str]) -> None:
    """In a subinterpreter, whose main thread may set no handlers, events are delivered without an error message."""
    # The HTTP client imports trio, if installed, whose import starts a process: not possible in a subinterpreter.
    inner = "import sys; sys.modules['trio'] = None; import ts_autotrack; ts_autotrack.track('e', user_id='u')"
    code = f'import _xxsubinterpreters as i\none = i.create()\ni.run_string(one, "{inner}")\ni.destroy(one)'
    done = run_python(code, **target)
    assert "failed" not in done.stderr
    assert len(inspector.items()) == 1, done.stderr
