"""The running inspector: its output and its database."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
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
