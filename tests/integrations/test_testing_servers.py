"""exporter=memory: read() returns the events of this process, and of the file that a server writes at its end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_python, wait_until
from tests.integrations.load import ROOT, drive, free_port, problems, requests_of_users, running
from ts_autotrack import configure, flush, shutdown, stats, track
from ts_autotrack.testing import capture_events, read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

APP = """
from fastapi import FastAPI, Header
from ts_autotrack import bind_user, track_feature
from ts_autotrack.integrations.asgi import TrackingMiddleware
from ts_autotrack.integrations.wsgi import TrackingMiddleware as WsgiTrackingMiddleware

app = FastAPI()
app.add_middleware(TrackingMiddleware)

@track_feature("work", capture=["number"])
def work(number, user):
    if user:
        bind_user(user, group_id=f"account-{user}", plan=f"plan-{user}")

@app.get("/work/{number}")
def endpoint(number: int, x_user: str | None = Header(None)):
    work(number, x_user)

def wsgi(environ, start_response):
    work(int(environ["PATH_INFO"].rpartition("/")[2]), environ.get("HTTP_X_USER"))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]

wsgi = WsgiTrackingMiddleware(wsgi)
"""
SERVERS = {
    "uvicorn": "uvicorn --app-dir {folder} --port {port} --log-level error app:app",
    "gunicorn": "gunicorn --chdir {folder} -w 2 --threads 4 -b 127.0.0.1:{port} app:wsgi",
}


def test_events_are_read_in_this_process() -> None:
    """Events count as pending until they are read or flushed, and stay readable after `shutdown`."""
    configure(exporter="memory")
    assert read().all == []
    for number in range(3):
        track("e", {"number": number}, user_id="u")
    assert (stats().pending, stats().delivered) == (3, 0)
    assert [event.properties["number"] for event in read()] == [0, 1, 2]
    assert (stats().pending, stats().delivered) == (0, 3)
    track("e", user_id="u")
    assert flush(0)
    assert shutdown(0)
    assert (len(read()), stats().accepted, stats().delivered) == (4, 4, 4)
    configure(exporter="memory")  # the process goes on
    track("e", user_id="u")
    assert len(read()) == 5
    with capture_events() as events:
        track("captured", user_id="u")
        assert [event.event_name for event in read()] == ["captured"]
    assert (len(read()), len(events)) == (5, 1)


def test_memory_is_bounded() -> None:
    """Events beyond MAX_QUEUE are refused, read or not; a full memory does not delay anything."""
    configure(exporter="memory", max_queue=10)
    for number in range(15):
        track("e", {"number": number}, user_id="u")
        if number == 4:
            assert flush(0)
    assert (len(read()), read().dropped, stats().pending) == (10, {"queue_full": 5}, 0)
    configure(max_queue_bytes=1)
    track("e", user_id="u")
    assert (len(read()), stats().accepted) == (10, 16)


@pytest.mark.usefixtures("inspector")
def test_a_process_without_memory_has_nothing_to_read() -> None:
    """The error names the setting."""
    with pytest.raises(RuntimeError, match="TS_AUTOTRACK_EXPORTER=memory, or use capture_events"):
        read()


def test_another_exporter_takes_over(inspector: Inspector, tmp_path: Path) -> None:
    """The exporter may change at any time: the account closes, and no thread is left in memory's place."""
    track("sent", user_id="u")
    assert flush(10)
    configure(exporter="memory")
    track("kept", user_id="u")
    assert read().one().event_name == "kept"
    track("kept, too", user_id="u")
    configure(exporter="jsonl", jsonl_path=tmp_path / "e.jsonl")
    track("written", user_id="u")
    assert flush(10)
    assert read(tmp_path / "e.jsonl").one().event_name == "written"
    assert (stats().accepted, stats().delivered, stats().pending) == (4, 4, 0)
    assert [item["event_name"] for item in inspector.items()] == ["sent"]


def test_threads_that_end_a_process_write_each_event_once(tmp_path: Path) -> None:
    """At SIGTERM the handler writes the file, and so do threads of a server with their last events."""
    path = tmp_path / "events.jsonl"
    configure(exporter="memory", jsonl_path=path)
    for number in range(2_000):
        track("e", {"number": number}, user_id="u")
    assert flush()
    start = threading.Barrier(4)

    def end() -> None:
        start.wait(30)
        shutdown()

    threads = [threading.Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.properties["number"] for event in read(path)] == list(range(2_000))


def test_files_are_read(tmp_path: Path) -> None:
    """A file of exporter=memory has the unattributed events, too; a half-written last line waits, others are errors."""
    path = tmp_path / "events.jsonl"
    code = """
from ts_autotrack import track, user_context
with user_context("ü", group_id="a"): track("long", {"text": "x" * 20_000})
track("nobody")
"""
    run_python(code, TS_AUTOTRACK_EXPORTER="memory", TS_AUTOTRACK_JSONL_PATH=str(path))
    events = read(path)
    assert (events.one("long").user_id, len(events.one("long").properties["text"])) == ("ü", 20_000)
    assert events.unattributed[0].place.startswith("__main__, line ")
    assert events.dropped == {"unattributed": 1}
    with path.open("a") as file:
        file.write('{"path": "/track", "ite')
    assert len(read(path)) == 1
    path.write_text("no event\n")
    with pytest.raises(ValueError, match=r"events.jsonl'\): line 1 is no event"):
        read(path).all  # noqa: B018 - reads the file
    with pytest.raises(FileNotFoundError):
        len(read(tmp_path / "absent"))


def test_a_file_that_cannot_be_written_is_named() -> None:
    """The end of the process warns, with the number of events, and keeps its exit status."""
    code = "from ts_autotrack import track; track('e', user_id='u')"
    done = run_python(code, TS_AUTOTRACK_EXPORTER="memory", TS_AUTOTRACK_JSONL_PATH="/absent/e.jsonl")
    assert done.returncode == 0
    assert "1 events of exporter=memory cannot be written to TS_AUTOTRACK_JSONL_PATH=/absent/e.jsonl" in done.stderr


@pytest.mark.parametrize("start", ["pass", "__import__('os').fork()"])
def test_every_end_of_a_process_writes_the_file(tmp_path: Path, start: str) -> None:
    """SIGTERM and a later exit hook of the application included; each process writes its own events, once."""
    path = tmp_path / "events.jsonl"
    code = f"""
import atexit, os, signal
def late(): track("late", user_id="u")
atexit.register(late)
from ts_autotrack import flush, track
track("early", user_id="u")
{start}
track("e", user_id="u")
flush()
if os.environ["END"] == "SIGTERM": os.kill(os.getpid(), signal.SIGTERM)
"""
    processes = 1 if start == "pass" else 2
    for end, names in (("normal", ["early", "e", "late"]), ("SIGTERM", ["early", "e"])):
        path.unlink(missing_ok=True)
        run_python(code, TS_AUTOTRACK_EXPORTER="memory", TS_AUTOTRACK_JSONL_PATH=str(path), END=end)
        expected = names + names[1:] * (processes - 1)

        def written(count: int = len(expected)) -> bool:
            return path.exists() and len(read(path)) >= count

        wait_until(written, f"events of {processes} processes after {end}")
        assert sorted(event.event_name for event in read(path)) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("server", SERVERS)
def test_events_of_a_test_server(server: str, tmp_path: Path) -> None:
    """A server with one or two processes, of 50 users, ended by SIGTERM: every event is a whole line of the file."""
    (tmp_path / "app.py").write_text(APP, "utf-8")
    port, path = free_port(), tmp_path / "events.jsonl"
    command = [word.format(folder=tmp_path, port=port) for word in SERVERS[server].split()]
    requests = requests_of_users(500)
    with running(command, port, TS_AUTOTRACK_EXPORTER="memory", TS_AUTOTRACK_JSONL_PATH=str(path)):
        answered = drive(port, requests)
    assert len(answered) == len(requests)
    items = [value["item"] for line in path.read_text().splitlines() if "place" not in (value := json.loads(line))]
    assert problems(answered, items) == []
    events = read(path)
    assert len({event.context["event_id"] for event in events}) == len(events) == 400
    assert len(events.unattributed) == 100


@pytest.mark.slow
@pytest.mark.parametrize(("command", "shown"), [("pytest -q", "5 passed"), ("unittest", "Ran 2 tests")])
def test_the_example_s_tests_pass(command: str, shown: str) -> None:
    """The tests of examples/testing_app pass by pytest and by unittest, without any setting."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT / "examples" / "testing_app",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "-c /dev/null -p no:cacheprovider"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown in done.stdout + done.stderr
