"""The exporters that stay on the machine."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_python
from ts_autotrack import configure, flush, group, stats, track
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing

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
    """EXPORTER=jsonl writes to standard output by default, in UTF-8 whatever the stream's encoding is."""
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
    """Where a file cannot be written, events wait, and the log says why."""
    configure(exporter="jsonl", jsonl_path="/dev/full")
    track("e", user_id="u")
    assert not flush(0.3)
    assert stats().pending == 1
    assert "cannot write to /dev/full" in caplog.text


def test_half_a_line_is_ended_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the system cut short leaves half a line; what follows begins on a line of its own."""
    import os  # noqa: PLC0415

    path = tmp_path / "events.jsonl"
    real, failures = os.write, [28]

    def write(file: int, text: bytes) -> int:
        if failures:
            real(file, text[:10])
            raise OSError(failures.pop(), "No space left on device")
        return real(file, text)

    monkeypatch.setattr("ts_autotrack._core.transports.local.os.write", write)
    client.pacing = Pacing(first_backoff=0.01)
    configure(exporter="jsonl", jsonl_path=path)
    track("e", user_id="u")
    assert flush(5)
    torn, whole = path.read_text().splitlines()
    assert torn == '{"path":"/'
    assert json.loads(whole)["item"]["event_name"] == "e"


def test_console_into_a_stream_of_text_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error has been replaced by something that takes text only, it gets text."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure(exporter="console")
    track("e", {"a": "ü"}, user_id="u", timestamp=0)
    assert flush(5)
    assert (
        stream.getvalue().splitlines()[0] == '[ts_autotrack] 1970-01-01T00:00:00.000000Z e user=u group=None {"a": "ü"}'
    )


def test_path_that_the_system_cannot_take(caplog: pytest.LogCaptureFixture) -> None:
    """A path that no file can have keeps the events, and the log says why."""
    configure(exporter="jsonl", jsonl_path="x" * 300)
    track("e", user_id="u")
    assert not flush(0.3)
    assert stats().pending == 1
    assert "File name too long" in caplog.text


@pytest.mark.parametrize("close", ["sys.stdout.close()", "sys.stdout = None"])
def test_closed_standard_output_is_no_harm(close: str) -> None:
    """A daemon without standard output keeps its events and its life."""
    code = f"import sys; {close}\nfrom ts_autotrack import *\ntrack('e', user_id='u'); flush(0.3)"
    code += "\nprint(stats().pending, file=sys.stderr)"
    done = run_python(code, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_EXIT_TIMEOUT="0.1")
    assert "1\n" in done.stderr
    assert done.returncode == 0
    assert sys.stdout is not None
