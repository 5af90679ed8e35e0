"""The running inspector: its output and its database."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx

from tests.inspector.conftest import KEY, TRACK, WHEN, Command

if TYPE_CHECKING:
    from pathlib import Path


def start(*options: str) -> tuple[Command, str]:
    """Start an inspector; return the process and its URL."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", *options]
    process = Command(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[3]


def test_command_prints_events_and_keeps_them_in_sqlite(tmp_path: Path) -> None:
    """Each event is printed on arrival; the file is a SQLite database, which survives the process."""
    database = tmp_path / "events.db"
    process, url = start("--port", "0", "--db", str(database))
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == f"export THRIVESTACK_ENDPOINT={url}/api\n"
        httpx.post(f"{url}/track", json=[TRACK], headers=KEY)
        assert process.stdout.readline() == f"[ts_autotrack] {WHEN} e user=u group=None {{}}\n"
        httpx.post(f"{url}/track", json=[{}], headers=KEY)
        assert process.stdout.readline() == "/track refused with 400: item 0: field 'event_name': is required\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT path, event_name, user_id FROM events").fetchall() == [("/track", "e", "u")]
    connection.close()


def test_readers_that_do_not_read_do_not_delay_the_end() -> None:
    """Within 2 s of SIGTERM the inspector ends, without an error: readers that do not read, and hanging requests."""
    process, url = start("--port", "0", "--quiet", "--fault", "hang=poison")
    assert process.stdout is not None
    port = int(url.rpartition(":")[2])
    large = [{**TRACK, "properties": {"text": "x" * 1_900_000}}]
    with process, contextlib.ExitStack() as stack:
        process.stdout.readline()
        assert httpx.get(f"{url}/counts").status_code == 200
        head = "HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        for request in (f"GET /stream {head}\r\n", f"POST /track {head}content-length: 6\r\n\r\npoison"):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(request.encode())
            if request.startswith("GET"):
                client.recv(1)
        for _ in range(4):
            assert httpx.post(f"{url}/track", json=large, headers=KEY).status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - began < 2
        assert process.stdout.read() == ""


def test_locked_database_is_told(tmp_path: Path) -> None:
    """While another process locks the database the inspector answers 503 with the reason, and one line tells."""
    database = tmp_path / "events.db"
    process, url = start("--port", "0", "--db", str(database))
    assert process.stdout is not None
    with process, contextlib.closing(sqlite3.connect(database)) as other:
        process.stdout.readline()
        assert httpx.post(f"{url}/track", json=[TRACK], headers=KEY).status_code == 200
        process.stdout.readline()
        other.execute("BEGIN EXCLUSIVE")
        answer = httpx.post(f"{url}/track", json=[TRACK], headers=KEY, timeout=20)
        assert (answer.status_code, "locked" in answer.json()["message"]) == (503, True)
        line = "/track answered with 503: the inspector's database fails: database is locked\n"
        assert process.stdout.readline() == line
        other.rollback()
        assert httpx.post(f"{url}/track", json=[TRACK], headers=KEY).status_code == 200
        process.send_signal(signal.SIGTERM)


def test_file_of_a_running_inspector_is_refused(tmp_path: Path) -> None:
    """A second inspector with the same file ends at once, with the reason; SQLite tools read the file meanwhile."""
    database = tmp_path / "events.db"
    process, url = start("--port", "0", "--db", str(database), "--quiet")
    with process:
        link = tmp_path / "link.db"
        link.symlink_to(database)
        command = [
            sys.executable,
            "-m",
            "ts_autotrack.cli",
            "inspect",
            "--port",
            "0",
            "--db",
            str(tmp_path / "link.db"),
        ]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert (second.returncode, second.stdout) == (1, "")
        assert "another inspector keeps its events in this file" in second.stderr
        httpx.post(f"{url}/track", json=[TRACK], headers=KEY)
        with contextlib.closing(sqlite3.connect(database)) as tool:
            assert tool.execute("SELECT count(*) FROM events").fetchone() == (1,)
        assert httpx.get(f"{url}/counts").json()["accepted"] == 1
        process.kill()  # the lock ends with the process
    process, url = start("--port", "0", "--db", str(database), "--quiet")
    with process:
        assert httpx.get(f"{url}/counts").json()["accepted"] == 1
        process.terminate()
