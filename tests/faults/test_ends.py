"""Any end of a process delivers its remaining events once, and keeps its exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import run_python, wait_until
from tests.faults._programs import APP, REPORT, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "end", "status"),
    [
        ("normal end", "", 0),
        ("`sys.exit`", "sys.exit(3)", 3),
        ("unhandled exception", "raise LookupError", 1),
        ("KeyboardInterrupt", "raise KeyboardInterrupt", -signal.SIGINT),
        (
            "Ctrl-C",  # shells make background jobs ignore SIGINT
            "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)",
            -signal.SIGINT,
        ),
        ("SIGTERM", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
        ("`sys.exit` in a thread", "threading.Thread(target=sys.exit).start()", 0),
        (
            "SIGTERM, own handler",
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); os.kill(os.getpid(), signal.SIGTERM)",
            7,
        ),
        (
            "SIGTERM, ignored",
            "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.kill(os.getpid(), signal.SIGTERM)",
            0,
        ),
    ],
)
def test_events_arrive_and_the_status_stays(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str, name: str, end: str, status: int
) -> None:
    """Normal ends, exceptions, interrupts and SIGTERM deliver the remaining events and keep the exit status."""
    done = run_python(f"{APP}ten()\n{end}", **target)
    assert done.returncode == status, done.stderr
    guarantee(name, kept, range(10), numbers(inspector))


def test_sigterm_in_an_application_with_its_own_handler_is_left_alone(
    inspector: Inspector, target: dict[str, str]
) -> None:
    """A handler set by the application before the first event stays in place and is the only handler to run."""
    code = """
import os, signal
calls = []
signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
mine = signal.getsignal(signal.SIGTERM)
from ts_autotrack import track
track("e", user_id="u")
os.kill(os.getpid(), signal.SIGTERM)
print(calls, signal.getsignal(signal.SIGTERM) is mine)
"""
    done = run_python(code, **target)
    assert (done.stdout, done.returncode) == ("[1] True\n", 0)
    assert len(inspector.items()) == 1


def test_sigterm_where_only_threads_track(inspector: Inspector, target: dict[str, str]) -> None:
    """After `configure` on the main thread, SIGTERM delivers the events of other threads."""
    code = """
import os, signal, threading, time
import ts_autotrack
ts_autotrack.configure(flush_interval=30)
thread = threading.Thread(target=lambda: [ts_autotrack.track("e", user_id="u", group_id="g") for _ in range(10)])
thread.start(); thread.join()
os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)
"""
    done = run_python(code, **target)
    assert done.returncode == -signal.SIGTERM
    assert len(inspector.items()) == 10


def test_sigterm_with_a_dead_server_is_over_in_time(dead_endpoint: str, environment: dict[str, str]) -> None:
    """EXIT_TIMEOUT bounds SIGTERM, too."""
    code = APP + "ten(); print(time.time(), flush=True); os.kill(os.getpid(), signal.SIGTERM)"
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint, TS_AUTOTRACK_EXIT_TIMEOUT="0.5", **environment)
    assert time.time() - float(done.stdout) < 3
    assert done.returncode == -signal.SIGTERM
    assert "10 events were not delivered in time" in done.stderr


def test_second_sigterm_ends_the_process_at_once(dead_endpoint: str, environment: dict[str, str]) -> None:
    """A second SIGTERM ends the process at once, without waiting for delivery."""
    code = APP + (
        "def watch():\n"
        "    while not ts_autotrack._core.client.client.shutdown.terminating: time.sleep(0.01)\n"
        "    print('drains', flush=True)\n"
        "threading.Thread(target=watch).start(); ten(); print('up', flush=True); time.sleep(60)"
    )
    target = {"THRIVESTACK_ENDPOINT": dead_endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "60", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **target}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.readline() == b"drains\n"
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


NO_THREAD = """
import threading, time
def refuse(self): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
from ts_autotrack import track
for n in range(10): track("e", {"n": n}, user_id="u", group_id="g")
"""


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"], ids=["end", "SIGTERM"])
def test_no_thread_can_be_started(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str, end: str
) -> None:
    """If no thread can be started, as at a system limit, the ending thread delivers the events."""
    done = run_python(f"{REPORT}{NO_THREAD}{end}", **target)
    assert done.returncode == (-signal.SIGTERM if end else 0), done.stderr
    guarantee("no thread can be started", kept, range(10), numbers(inspector))


FORK_AT_ONCE = (
    REPORT
    + """
import time
from ts_autotrack import flush, track
track("parent", {"n": 0}, user_id="u")
time.sleep(float(os.environ["PAUSE"]))  # the child must not inherit a half-imported module of the thread
child = os.fork()
if child == 0:
    track("child", {"n": 1}, user_id="u")
    import httpx, orjson, logging
    httpx.Client, orjson.dumps, logging.getLogger
    os._exit(0 if flush(10) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
)


@pytest.mark.parametrize("pause", [0, 0.005, 0.01, 0.02, 0.04, 0.08])
def test_fork_right_after_the_first_event(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str, pause: float
) -> None:
    """A fork right after the first event keeps delivery working in parent and child."""
    done = run_python(FORK_AT_ONCE, PAUSE=str(pause), **target)
    assert done.returncode == 0, done.stderr
    guarantee("fork right after the first event", kept, range(2), numbers(inspector), processes=2)


CHILDREN = """
def child(start): ten(start)
if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context({method!r})
    ten()
    {run}
"""
PROCESS = "p = context.Process(target=child, args=(10,)); p.start(); p.join(); assert p.exitcode == 0"
POOL = "pool = context.Pool(2); pool.map(child, [10, 20, 30], 1); pool.close(); pool.join()"
TERMINATED = "pool = context.Pool(1); pool.map(child, [10], 1); pool.terminate(); pool.join()"
EXECUTOR = """
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=context) as executor: list(executor.map(child, [10, 20, 30]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize(
    ("name", "run_children", "last"),
    [
        ("`Process`", PROCESS, 20),
        ("`Pool`", POOL, 40),
        ("terminated `Pool`", TERMINATED, 20),
        ("`ProcessPoolExecutor`", EXECUTOR, 40),
    ],
)
def test_multiprocessing(  # noqa: PLR0913 - fixtures
    inspector: Inspector,
    target: dict[str, str],
    guarantee: Any,
    kept: str,
    tmp_path: Path,
    method: str,
    name: str,
    run_children: str,
    last: int,
) -> None:
    """Children of every start method deliver their own events, and none of their parent's."""
    script = tmp_path / "app.py"
    script.write_text(APP + CHILDREN.format(method=method, run=run_children))
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **target},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    print(done.stderr)  # shown on failure
    assert done.returncode == 0
    guarantee(f"multiprocessing {name}, {method}", kept, range(last), numbers(inspector), processes=2)


def free_port() -> int:
    """Return a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


WSGI = (
    APP.replace("work(-1); ts_autotrack.flush(5)", "")
    + """
if os.environ.get("TRACK_AT_IMPORT"):
    with user_context("u", group_id="g"): work(-1)
def app(environ, start_response):
    ten(int(environ["QUERY_STRING"]))
    start_response("200 OK", [("content-length", "2")])
    return [b"ok"]
async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown": return
    ten(int(scope["query_string"]))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
)


@pytest.fixture
def served(tmp_path: Path, target: dict[str, str]) -> Iterator[Any]:
    """Serve the application with a command, send requests, end the server with SIGTERM, and return its status."""
    (tmp_path / "app.py").write_text(WSGI)
    started: list[subprocess.Popen[bytes]] = []

    def serve(command: list[str], **environment: str) -> int:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.format(port=port) for word in command)],
            cwd=tmp_path,
            env={**os.environ, **target, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)

        def up() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(up, "the server", 20)
        for start in range(0, 100, 10):
            assert httpx.get(f"http://127.0.0.1:{port}/?{start}", timeout=20).text == "ok"
        process.terminate()
        return process.wait(20)

    yield serve
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_gunicorn(inspector: Inspector, served: Any, guarantee: Any, kept: str, preload: list[str]) -> None:
    """Sync workers deliver at SIGTERM; an event tracked before --preload forks is sent once, and stops no worker's
    delivery.
    """
    command = ["gunicorn", "app:app", "-w", "2", "-b", "127.0.0.1:{port}", *preload]
    assert served(command, TRACK_AT_IMPORT="1") == 0
    arrived = numbers(inspector)
    assert [n for n in arrived if n < 0] == ([-1] if preload else [-1, -1])
    guarantee(" ".join(["gunicorn", *preload]), kept, range(100), [n for n in arrived if n >= 0], processes=2)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["single", "workers"])
def test_uvicorn(inspector: Inspector, served: Any, guarantee: Any, kept: str, workers: list[str]) -> None:
    """Uvicorn's graceful stop, which sends a second SIGTERM to its own process, delivers the remaining events."""
    served(["uvicorn", "app:asgi", "--port", "{port}", *workers])
    guarantee(" ".join(["uvicorn", *workers]), kept, range(100), numbers(inspector))


CELERY = (
    APP.replace("work(-1); ts_autotrack.flush(5)", "")
    + """
from celery import Celery
app = Celery("app", broker="filesystem://")
here = os.path.dirname(os.path.abspath(__file__))
app.conf.update(broker_transport_options={k: here + "/queue" for k in ("data_folder_in", "data_folder_out")}
                | {"control_folder": here + "/control"}, worker_max_tasks_per_child=2, worker_hijack_root_logger=False)
@app.task
def task(start): ten(start)
"""
)


def test_celery_prefork(
    inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str, tmp_path: Path
) -> None:
    """Prefork workers with two tasks each deliver the events of all tasks."""
    (tmp_path / "app.py").write_text(CELERY)
    (tmp_path / "queue").mkdir()
    (tmp_path / "control").mkdir()
    environment = {**os.environ, **target}
    command = [sys.executable, "-m", "celery", "-A", "app", "worker", "-c", "2", "-P", "prefork", "-l", "warning"]
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            send = "import app\nfor start in range(0, 80, 10): app.task.delay(start)"
            subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=environment, check=True, timeout=60)
            wait_until(lambda: not list((tmp_path / "queue").iterdir()), "the tasks to be taken", 60)
        finally:
            worker.terminate()
            worker.wait(60)
    guarantee("Celery prefork, max-tasks-per-child", kept, range(80), numbers(inspector), processes=4)


def test_gevent(inspector: Inspector, target: dict[str, str], guarantee: Any, kept: str) -> None:
    """In a gevent-patched process, greenlets track and the end delivers.

    The connection is open before the end: on Python 3.12 gevent can look up no host once exit hooks run.
    """
    code = (
        "from gevent import monkey; monkey.patch_all()\nimport gevent\n"
        + APP
        + "ten(); ts_autotrack.flush(5)\n"
        + "gevent.joinall([gevent.spawn(ten, start) for start in range(10, 100, 10)])"
    )
    done = run_python(code, **target)
    assert done.returncode == 0, done.stderr
    guarantee("gevent", kept, range(100), numbers(inspector))
