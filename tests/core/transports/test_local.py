"""The local exporters: console and JSON lines."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Answer, ScriptedServer, run_python
from ts_autotrack import configure, flush, group, stats, track
from ts_autotrack._core.transports.jsonl import JsonLinesTransport
from ts_autotrack._core.transports.stream import LineWriter

if TYPE_CHECKING:
    from pathlib import Path


EVENT = (
    "from ts_autotrack import track, flush; track('e', {'a': 'ü'}, user_id='u', group_id='g', timestamp=0); flush(5)"
)


def test_console_prints_a_line_for_each_event() -> None:
    """EXPORTER=console shows events on standard error, without a key and without an HTTP client."""
    done = run_python(EVENT + "; import sys; print('httpx' in sys.modules)", TS_AUTOTRACK_EXPORTER="console")
    assert done.stderr == '[ts_autotrack] 1970-01-01T00:00:00.000000Z e user=u group=g {"a": "ü"}\n'
    assert done.stdout == "False\n"


def test_json_lines_to_standard_output() -> None:
    """EXPORTER=jsonl writes to standard output by default, in UTF-8 for any encoding of the stream."""
    done = run_python(EVENT, TS_AUTOTRACK_EXPORTER="jsonl", PYTHONIOENCODING="ascii")
    line = json.loads(done.stdout)
    assert (line["path"], line["item"]["properties"]) == ("/track", {"a": "ü"})


def test_json_lines_to_a_file(tmp_path: Path) -> None:
    """A file is appended to, and may be rotated while the process runs."""
    path = tmp_path / "events.jsonl"
    configure(exporter="jsonl", jsonl_path=path)
    track("a", user_id="u")
    group("g", {"plan": "pro"})
    assert flush(5)
    path.rename(tmp_path / "old.jsonl")
    track("b", user_id="u")
    assert flush(5)
    lines = [
        json.loads(line)
        for name in ("old.jsonl", "events.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert [(line["path"], line["item"].get("event_name")) for line in lines] == [("/track", "a"), ("/track", "b")]
    assert path.stat().st_mode & 0o777 == 0o600
    assert stats().dropped == {"unattributed": 1}


def test_full_disk_keeps_the_events(caplog: pytest.LogCaptureFixture) -> None:
    """If a file cannot be written, events wait, and the log says why."""
    configure(exporter="jsonl", jsonl_path="/dev/full")
    track("e", user_id="u")
    assert not flush(0.3)
    assert stats().pending == 1
    assert "cannot write to /dev/full" in caplog.text


def test_half_a_line_is_ended_before_the_next(tmp_path: Path) -> None:
    """A write cut short by the system leaves half a line; the next item begins on a new line."""
    path = tmp_path / "events.jsonl"
    failures = [28]

    def write(file: int, text: bytes) -> int:
        if failures:
            os.write(file, text[:10])
            raise OSError(failures.pop(), "No space left on device")
        return os.write(file, text)

    transport = JsonLinesTransport(str(path), write)
    failed = transport.send("/track", [b'{"event_name": "e"}'], 1)
    assert (failed.status, b"No space left on device" in failed.body) == (0, True)
    assert transport.send("/track", [b'{"event_name": "e"}'], 1).status == 200
    torn, whole = path.read_text().splitlines()
    assert torn == '{"path":"/'
    assert json.loads(whole)["item"]["event_name"] == "e"


def test_console_into_a_stream_of_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text-only replacement of standard error gets text."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(exporter="console")
    track("e", {"a": "ü"}, user_id="u", timestamp=0)
    assert flush(5)
    assert (
        stream.getvalue().splitlines()[0] == '[ts_autotrack] 1970-01-01T00:00:00.000000Z e user=u group=None {"a": "ü"}'
    )


def test_path_that_the_system_cannot_take(caplog: pytest.LogCaptureFixture) -> None:
    """A path too long for the system keeps the events, and the log says why."""
    configure(exporter="jsonl", jsonl_path="x" * 300)
    track("e", user_id="u")
    assert not flush(0.3)
    assert stats().pending == 1
    assert "File name too long" in caplog.text


@pytest.mark.parametrize("close", ["sys.stdout.close()", "sys.stdout = None"])
def test_closed_standard_output_is_no_harm(close: str) -> None:
    """A daemon without standard output keeps its events and goes on."""
    code = f"import sys; {close}\nfrom ts_autotrack import *\ntrack('e', user_id='u'); flush(0.3)"
    code += "\nprint(stats().pending, file=sys.stderr)"
    done = run_python(code, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_EXIT_TIMEOUT="0.1")
    assert "1\n" in done.stderr
    assert done.returncode == 0
    assert sys.stdout is not None


STALLED = """
import sys, time, ts_autotrack
ts_autotrack.configure(exporter=sys.argv[1], exit_timeout=0.5)
for i in range(3000): ts_autotrack.track("e", {"n": i}, user_id="u")
began = time.monotonic()
settled = ts_autotrack.flush(0.5)
assert not settled and time.monotonic() - began < 5
"""


@pytest.mark.parametrize("exporter", ["jsonl", "console"])
def test_pipe_that_nobody_reads_holds_up_no_end(exporter: str) -> None:
    """If the reader of the standard streams stalls, flush() and the process end in their time."""
    reader, writer = os.pipe()
    try:
        began = time.monotonic()
        command = [sys.executable, "-c", STALLED, exporter]
        with subprocess.Popen(command, stdout=writer, stderr=writer) as process:
            os.close(writer)
            assert process.wait(20) == 0
        assert time.monotonic() - began < 15
        assert len(os.read(reader, 1_000_000)) > 50_000
    finally:
        os.close(reader)


@given(st.lists(st.integers(1, 9_000), max_size=40), st.integers(1, 8))
def test_slow_reader_gets_each_line_once(sizes: list[int], retried: int) -> None:
    """Batches that were not finished in time go on behind the lines already written, for any sizes."""
    lines = [b"%d:%b\n" % (index, b"x" * size) for index, size in enumerate(sizes)]
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    got, lines_writer, start = b"", LineWriter(), 0
    try:
        while start < len(lines):
            batch = lines[start : start + retried] if len(got) % 2 else lines[start:]
            try:
                lines_writer.write(writer, batch, 0.0)
                start += len(batch)
            except TimeoutError:
                got += os.read(reader, 10_000)
        while True:
            got += os.read(reader, 1_000_000)
    except BlockingIOError:
        pass
    finally:
        os.close(reader)
        os.close(writer)
    whole = [line + b"\n" for line in got.split(b"\n") if line.endswith(b"x") and b":" in line]
    assert [line for line in whole if line in lines] == lines


def test_named_pipe_without_a_reader_keeps_the_events(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A named pipe as the file holds no thread; the events arrive once a reader is there."""
    path = tmp_path / "events.pipe"
    os.mkfifo(path)
    configure(exporter="jsonl", jsonl_path=path)
    track("e", user_id="u")
    assert not flush(0.2)
    assert "cannot write to" in caplog.text
    arrived: list[str] = []
    thread = threading.Thread(target=lambda: arrived.append(path.read_text()), daemon=True)
    thread.start()
    assert flush(10)
    thread.join(10)
    assert json.loads(arrived[0])["item"]["event_name"] == "e"


def test_contents_of_events_reach_no_terminal_as_commands() -> None:
    """Ids and properties with control characters, C1 and DEL included, are shown as escapes, each on its own line."""
    user = r"u\x1b]0;owned\x07\n[ts_autotrack] forged"
    call = rf"track('e', {{'a': '\x9b2J\x7f\n'}}, user_id='{user}', group_id='g'); flush(5)"
    code = f"from ts_autotrack import track, flush\n{call}"
    console = run_python(code, TS_AUTOTRACK_EXPORTER="console").stderr.splitlines()
    assert len(console) == 1
    assert console[0].isprintable()
    lines = run_python(code, TS_AUTOTRACK_EXPORTER="jsonl").stdout.splitlines()
    assert len(lines) == 1
    assert lines[0].isprintable()
    assert json.loads(lines[0])["item"]["properties"] == {"a": "\x9b2J\x7f\n"}


def test_full_standard_error_stops_no_delivery(server: ScriptedServer) -> None:
    """If nobody reads standard error, warnings are left out; events arrive, and SIGTERM ends the process in time."""
    code = """
import os, signal, sys
from ts_autotrack import *
os.set_blocking(2, False)
try:
    while True: os.write(2, b"x" * 4096)
except BlockingIOError: os.set_blocking(2, True)
track("e", user_id="u", group_id="g")
print(flush(10), stats().delivered, flush=True)
configure(endpoint="http://127.0.0.1:1")
track("late", user_id="u", group_id="g")
os.kill(os.getpid(), signal.SIGTERM)
"""
    server.script.append(Answer(503))
    reader, writer = os.pipe()
    environment = {**os.environ, "THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "0.5"}
    try:
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=writer, env=environment) as process:
            os.close(writer)
            assert process.stdout is not None
            assert process.stdout.readline() == b"True 1\n"
            assert process.wait(20) == -signal.SIGTERM
    finally:
        os.close(reader)
