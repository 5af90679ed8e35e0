"""`ts-autotrack inspect --tail` and `--open`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import threading
import time
import unicodedata
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import DEADLINE
from tests.inspector.conftest import KEY, TRACK, Command
from tests.inspector.test_serve import start

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


class Terminal:
    """A terminal with a width."""

    def __init__(self, width: int) -> None:
        self.own, self.others = pty.openpty()
        self.text = ""
        self.resize(width)

    def resize(self, width: int) -> None:
        """Change the width."""
        fcntl.ioctl(self.others, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))

    def wait_for(self, text: str) -> str:
        """Read until the text has arrived; return everything so far."""
        end = time.monotonic() + 3 * DEADLINE
        while text not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.own], [], [], 0.1)[0]:
                self.text += os.read(self.own, 65_536).decode()
        return self.text


def test_table_in_a_terminal_and_in_a_pipe() -> None:
    """The command serves and shows, or shows the running inspector: as wide as the terminal, in full in a pipe."""
    terminal = Terminal(100)
    with running("0", stdout=terminal.others, stderr=terminal.others) as process:
        terminal.wait_for("/api\r\n")
        url = terminal.text.split()[3]
        httpx.post(f"{url}/track", json=[{**TRACK, "user_id": "u" * 50}], headers=KEY)
        assert "u" * 50 not in terminal.wait_for("accepted")
        terminal.resize(70)
        httpx.post(f"{url}/track", json=[{"event_name": "forged \x1b[2J\n"}], headers=KEY)
        shown = terminal.wait_for("refused")
        assert "\x1b[2J" not in shown
        assert shown.count("time ") == 2
        with running(url.rpartition(":")[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as pipe:
            assert pipe.stdout is not None
            assert pipe.stderr is not None
            head, first, second = (pipe.stdout.readline() for _ in range(3))
            assert head.split() == ["time", "feature", "user", "account", "status", "remarks"]
            assert "accepted" in first
            assert second.endswith("user_id: is required\n")
            httpx.post(f"{url}/track", json=[TRACK], headers=KEY)
            assert " e " in pipe.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 0
            assert "this command shows it" in pipe.stderr.readline()
            assert "does not answer; waiting for it" in pipe.stderr.readline()
            pipe.send_signal(signal.SIGINT)
            assert pipe.wait(DEADLINE) == 0


def test_rows_fit_whatever_they_hold(tmp_path: Path) -> None:
    """A row keeps to the width: escapes of an output that is no UTF-8, letters of two columns; also after a lock."""
    database = tmp_path / "events.db"
    wide, last = {**TRACK, "event_name": "\u540d" * 30, "context": {"group_id": "wide"}}, {**TRACK, "user_id": "last"}
    for encoding in ("ascii", "utf-8"):
        terminal = Terminal(80)
        streams = {"stdout": terminal.others, "stderr": terminal.others}
        with running("0", "--db", str(database), encoding=encoding, **streams) as process:
            terminal.wait_for("/api\r\n")
            url = terminal.text.split()[3]
            assert httpx.post(f"{url}/track", json=[TRACK], headers=KEY).status_code == 200
            terminal.wait_for("accepted")
            with contextlib.closing(sqlite3.connect(database)) as other:
                other.execute("BEGIN EXCLUSIVE")
                httpx.put(f"{url}/faults")  # the stream looks into the database, and ends
                assert httpx.get(f"{url}/events", timeout=20).status_code == 503
                other.rollback()
            assert httpx.post(f"{url}/track", json=[wide, last], headers=KEY).status_code == 200
            shown = terminal.wait_for(" last ")
            line = next(line for line in shown.splitlines() if " wide " in line)
            assert columns(line) <= 80
            assert ("\u540d" in line, "\\u540d" in line) == (encoding == "utf-8", encoding == "ascii")
            process.terminate()


def columns(line: str) -> int:
    """Return the columns of a line in a terminal."""
    return sum(2 if unicodedata.east_asian_width(letter) in "FW" else 1 for letter in line)


def running(port: str, *options: str, encoding: str = "utf-8", **streams: Any) -> Command:
    """Start the command with a table.

    The variable COLUMNS would hide the terminal's width. GNU readline, which pytest imports, sets COLUMNS for child
    processes without an environment of their own.
    """
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--tail", "--port", port, *options]
    return Command(command, env={**environment, "PYTHONIOENCODING": encoding}, text=True, **streams)


def test_browser_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--open opens the page in the browser of the user, here a program that writes the address to a file."""
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    process, url = start("--port", "0", "--open", "--quiet")
    with process:
        end = time.monotonic() + DEADLINE
        while not (tmp_path / "opened").exists() or not (tmp_path / "opened").read_text():
            assert time.monotonic() < end
            threading.Event().wait(0.01)
        assert (tmp_path / "opened").read_text() == f"{url}\n"
        process.terminate()
