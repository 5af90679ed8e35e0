"""The rare ends: events in the last moment, forks and signals at the wrong one, threads that outlive their process."""

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
from tests.faults.test_ends import APP, REPORT, numbers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector, ScriptedServer

pytestmark = pytest.mark.slow


@pytest.fixture
def target(inspector: Inspector, environment: dict[str, str]) -> dict[str, str]:
    """The variables of an application that delivers to the inspector."""
    return {**environment, "THRIVESTACK_ENDPOINT": inspector.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "15"}


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
    """However soon after the first event, and whoever's it was, the end delivers all."""
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
os.register_at_fork(after_in_parent=lambda: os.stat("/"))  # a hook that lets go of the GIL for a moment
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
    """Each gives back what it has held, and nothing else; delivery goes on."""
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
    """Nothing is printed on the application's standard error, and nothing lost."""
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
        return  # and with this thread, which has no other beside it, the process ends
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline: os.kill(child, 9)
        time.sleep(0.01)
    print(ended[1])
thread = threading.Thread(target=fork); thread.start(); thread.join()
"""


def test_child_that_a_thread_has_forked_ends(inspector: Inspector, target: dict[str, str], dead_endpoint: str) -> None:
    """The library's own thread does not keep it alive, and delivers what is left before that."""
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
    """What it tracks after the child's finalizers have run arrives, too."""
    script = tmp_path / "app.py"
    script.write_text(APP + THREAD_THAT_OUTLIVES.format(method=method))
    subprocess.run([sys.executable, str(script)], env={**os.environ, **target}, check=True, timeout=60)
    assert numbers(inspector) == list(range(20))


@pytest.mark.parametrize("ends_before", ["", "ts_autotrack.shutdown()"])
def test_exit_hooks_that_run_after_ours(inspector: Inspector, target: dict[str, str], ends_before: str) -> None:
    """An event of a hook that was registered before the import arrives; after an explicit shutdown it is dropped."""
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


def test_sigterm_of_a_gevent_process_that_is_idle(inspector: Inspector, target: dict[str, str]) -> None:
    """The signal finds gevent's hub, which must not wait: a greenlet delivers, and the status stays."""
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


def test_sender_that_something_has_killed_is_replaced(inspector: Inspector, target: dict[str, str]) -> None:
    """Killing all greenlets kills the library's, too; the next event starts another one, and nothing is lost."""
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigterm_that_is_handled_in_c_is_left_alone(inspector: Inspector, target: dict[str, str]) -> None:
    """A handler that Python does not know of, such as faulthandler's, stays in place."""
    code = "import faulthandler, signal\nfaulthandler.register(signal.SIGTERM)\n" + APP
    done = run_python(code + "ten(); os.kill(os.getpid(), signal.SIGTERM); print('lives')", **target)
    assert (done.returncode, done.stdout) == (0, "lives\n")
    assert "most recent call first" in done.stderr
    assert numbers(inspector) == list(range(10))


def test_nothing_is_forked_while_sigterm_drains(server: ScriptedServer, environment: dict[str, str]) -> None:
    """A pool that replaces workers which the same signal has ended would leave them behind, with no parent."""
    code = (
        APP.replace("work(-1); ts_autotrack.flush(5)", "")
        + """
ten()
def fork():
    while not ts_autotrack._core.client.client.shutdown.terminating: time.sleep(0.01)
    time.sleep(0.2)  # a moment within the second that draining takes
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
    """What was held for the fork is let go, so that what is left can be delivered."""
    code = APP + (
        "ten()\nos.register_at_fork(before=lambda: os.kill(os.getpid(), signal.SIGTERM))\n"
        "os.register_at_fork(before=lambda: None)\nos.fork()"
    )
    done = run_python(code, **target)
    assert done.returncode == -15, done.stderr
    assert numbers(inspector) == list(range(10))


def container() -> list[str]:
    """Return a command that runs Python as the first process of a container, if this machine lets us."""
    command = ["unshare", "-r", "-p", "-f", sys.executable, "-c"]
    if shutil.which("unshare") is None or subprocess.run([*command, ""], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a process the first of its own")
    return command


def test_sigterm_of_the_first_process_of_a_container(inspector: Inspector, target: dict[str, str]) -> None:
    """The system ignores the signal there: all is delivered each time, and the process goes on as it did."""
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
    """The end takes two requests at the most, whatever the main thread is at; what it has tracked by then arrives."""

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


def test_shutdown_that_failed_was_not_the_end(server: ScriptedServer, environment: dict[str, str]) -> None:
    """After a `configure` that undoes it, the end has its own EXIT_TIMEOUT."""
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


def test_sigterm_that_failed_was_not_the_end(
    server: ScriptedServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """Where the process goes on, the next one waits for all that was tracked by then."""
    mended = tmp_path / "mended"
    server.always = lambda _: Answer(200 if mended.exists() else 503)
    code = f"""{APP}
ten(); os.kill(1, signal.SIGTERM); print(ts_autotrack.stats().pending)
open({str(mended)!r}, "w").close()
ts_autotrack.configure(exit_timeout=15)
for start in range(10, 2000, 10): ten(start)  # more than go out with what has failed
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
    def emit(self, record):  # whoever logs holds the handler's lock
        if record.getMessage() == "now": terminate()
        super().emit(record)
logging.basicConfig(handlers=[Handler()], level=logging.WARNING)
track("first", user_id="u", group_id="g"); ts_autotrack.flush(15)
track("nobody's")  # which the sender has to say
ten()
logging.warning("now")
""",
    "import": """
class Finder:
    def find_spec(name, path, target=None):
        if name == "httpx._client" and threading.current_thread() is threading.main_thread():
            sys.meta_path.remove(Finder)
            ten()
            time.sleep(0.1)  # the sender wants to import it, too
            terminate()
sys.meta_path.insert(0, Finder)
import httpx
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
    """What delivery needs is given back first; that holds up neither the end nor the events."""
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
    least = 10 if lock in ("log handler", "import") else 1  # in the others the signal comes with the first of them
    guarantee(
        "SIGTERM while the main thread holds a lock", kept, range(max(least, len(arrived))), arrived, counted=False
    )


@pytest.mark.parametrize(
    ("durability", "then", "least"), [("batch", "ten(); watch()", 10), ("event", "watch(); ten()", 1)]
)
def test_sigterm_while_the_main_thread_uses_the_outbox(  # noqa: PLR0913 - fixtures
    inspector: Inspector, target: dict[str, str], tmp_path: Path, durability: str, then: str, least: int
) -> None:
    """It does so when it ends, and in every call if each event is to be on disk by then. All is delivered first."""
    code = f"""{APP}
def at(frame, *_):
    if frame.f_code.co_filename.endswith("_intake.py"):
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


def test_exit_does_not_wait_for_a_server_that_cannot_be_asked_in_time(
    server: ScriptedServer, environment: dict[str, str]
) -> None:
    """A server that asks for a minute's pause does not cost the end of the process its two seconds."""
    server.always = lambda _: Answer(429, headers={"Retry-After": "60"})
    code = APP + "ten(); began = time.monotonic(); print(ts_autotrack.shutdown(10), time.monotonic() - began < 5)"
    began = time.monotonic()
    done = run_python(code.replace("flush(5)", "flush(0.5)"), THRIVESTACK_ENDPOINT=server.endpoint, **environment)
    assert done.stdout == "False True\n", done.stderr
    assert time.monotonic() - began < 10


def test_no_thread_and_an_outbox(inspector: Inspector, environment: dict[str, str], tmp_path: Path) -> None:
    """Where no thread can be started, callers have the outbox keep their events, and a crash loses none."""
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
    """In a subinterpreter, whose main thread may set no handlers, events are delivered without a complaint."""
    inner = "import ts_autotrack\\nts_autotrack.track('e', user_id='u', group_id='g')"
    code = f'import _xxsubinterpreters as i\none = i.create()\ni.run_string(one, "{inner}")\ni.destroy(one)'
    done = run_python(code, **target)
    assert "failed" not in done.stderr
    assert len(inspector.items()) == 1, done.stderr
