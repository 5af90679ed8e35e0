"""`ts-autotrack doctor` and the outbox: directory, disk, events, and reports of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_python, wait_until
from ts_autotrack._core.outbox.file import OutboxFile
from ts_autotrack._core.outbox.quarantine import Quarantine
from ts_autotrack._core.outbox.reports import ReportFile
from ts_autotrack._core.outbox.schema import EVENT_PAGE
from ts_autotrack.cli.doctor.outbox import check_outbox, file_system
from ts_autotrack.cli.doctor.processes import check_processes, find_outbox
from ts_autotrack.typing import RejectedItem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ts_autotrack.cli.doctor.findings import Finding

LIMIT = 1_000_000
"""Bytes of the outboxes of these tests, so that any disk has the space."""


def by_level(findings: list[Finding]) -> dict[str, str]:
    """Return the facts by level."""
    return {level: "\n".join(f.seen for f in findings if f.level == level) for level in {f.level for f in findings}}


def test_no_directory_yet(tmp_path: Path) -> None:
    """Without an outbox there is a note; a missing directory is in order if it can be made; a file is an error."""
    assert by_level(list(check_outbox(None, LIMIT))).keys() == {"note"}
    missing = tmp_path / "a" / "b"
    assert "is made at the first event" in by_level(list(check_outbox(str(missing), LIMIT)))["ok"]
    assert not missing.parent.exists()
    (tmp_path / "file").touch()
    assert "is no directory" in by_level(list(check_outbox(str(tmp_path / "file"), LIMIT)))["error"]


def test_contents(tmp_path: Path) -> None:
    """Waiting events of ended processes, refused items and unreadable files are warnings; nothing is changed."""
    tmp_path.chmod(0o700)
    file = OutboxFile.create(str(tmp_path), page_size=EVENT_PAGE)
    file.append([("/track", b"{}", 0), ("/track", b"{}", 0)])
    file.close()
    item = json.dumps({"event_name": "x", "context": {"event_id": "1"}})
    Quarantine(str(tmp_path)).keep([RejectedItem("/track", item, "no such field", "2026-11-26T00:00:00Z")])
    (tmp_path / "x.events.1.corrupt").touch()
    before = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    found = by_level(list(check_outbox(str(tmp_path), LIMIT)))
    assert "2 events waiting in 1 file" in found["ok"]
    assert "is writable and private" in found["ok"]
    assert "2 events of ended processes" in found["warning"]
    assert "1 event refused by the server, at last: no such field" in found["warning"]
    assert "1 unreadable file set aside" in found["warning"]
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == before


def test_disk_and_permissions(tmp_path: Path) -> None:
    """An open directory, a full disk, and an outbox near its limit are warnings."""
    tmp_path.chmod(0o755)
    assert "has mode 0755" in by_level(list(check_outbox(str(tmp_path), LIMIT)))["warning"]
    assert "are free, less than" in by_level(list(check_outbox(str(tmp_path), 10**15)))["warning"]
    file = OutboxFile.create(str(tmp_path), page_size=EVENT_PAGE)
    file.append([("/track", b"{}", 0)])
    file.close()
    assert "nearly full" in by_level(list(check_outbox(str(tmp_path), 1_000)))["warning"]


def test_directory_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that this user may not write to is an error."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert "may not write" in by_level(list(check_outbox(str(tmp_path), LIMIT)))["error"]
    assert "may not make it" in by_level(list(check_outbox(str(tmp_path / "new"), LIMIT)))["error"]


def test_file_system(tmp_path: Path) -> None:
    """The mount nearest to a directory decides; a later mount hides an earlier one; spaces are escaped."""
    mounts = tmp_path / "mounts"
    with_space = tmp_path / "a b"
    rows = ["/dev/a / ext4 rw", f"srv:/x {tmp_path} nfs4 rw", f"t {with_space} ext4 rw", f"t {with_space} tmpfs rw"]
    mounts.write_text("\n".join(row.replace("a b", "a\\040b") for row in rows))
    assert file_system(str(tmp_path / "outbox"), str(mounts)) == "nfs4"
    assert file_system(str(with_space), str(mounts)) == "tmpfs"
    assert file_system("/", str(mounts)) == "ext4"
    assert file_system("/", str(tmp_path / "none")) == ""


def test_report_of_a_process(tmp_path: Path) -> None:
    """Unattributed places and drops of a running process are warnings; --pid leaves out the others."""
    places = [{"place": f"app.view, line {n}", "event": "feature_used", "feature": "x", "count": 2} for n in range(30)]
    values = {"program": "app.py", "stats": {"accepted": 7}, "drops": {"queue_full": 3}, "unattributed": places}
    report = ReportFile(str(tmp_path))
    report.write(json.dumps(values).encode())
    found = by_level(list(check_processes(str(tmp_path), None)))
    assert f"process {os.getpid()} (app.py): accepted 7" in found["ok"]
    assert "x without a user at app.view, line 0, 2 times" in found["warning"]
    assert "3 events dropped as queue_full: the queue in memory was full" in found["warning"]
    assert "10 places more" in found["note"]
    assert by_level(list(check_processes(str(tmp_path), os.getppid()))).keys() == {"note"}
    report.write(b'["damaged')
    assert by_level(list(check_processes(str(tmp_path), None))).keys() == {"note"}
    report.remove()
    assert list(check_processes(str(tmp_path), None)) == []


@pytest.mark.slow
def test_pid(tmp_path: Path) -> None:
    """--pid finds the outbox in the environment of the process, relative to the folder of the process."""
    code = (
        "import os\n"
        "from ts_autotrack.cli.doctor.processes import find_outbox\n"
        "print(*find_outbox(None, os.getpid()))\n"
        "child = os.fork()\n"
        "if not child: os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(find_outbox(None, child)[1][0].level)\n"
    )
    done = run_python(f"import os; os.chdir({str(tmp_path)!r})\n{code}", TS_AUTOTRACK_OUTBOX="box")
    assert done.stdout.splitlines() == [f"{tmp_path}/box []", "error"], done.stderr
    assert find_outbox("/srv/box", None) == ("/srv/box", [])


def events(outbox: Path) -> dict[Path, bytes]:
    """Return the files of an outbox, without the report that a running process may write at any time."""
    return {path: path.read_bytes() for path in outbox.iterdir() if path.suffix != ".json"}


@pytest.mark.slow
def test_pid_of_a_running_process(tmp_path: Path, alive_process: subprocess.Popen[str]) -> None:
    """--pid shows the places of a real process whose events have no user, and changes nothing in its outbox."""
    pid = str(alive_process.pid)
    before = events(tmp_path / "box")
    done = run_python(f"import sys; from ts_autotrack.cli import main; sys.exit(main(['doctor', '--pid', {pid!r}]))")
    assert f"process {pid} (app.py): accepted 2, delivered 0" in done.stdout, done.stderr
    assert "nobody without a user at __main__, line 3, 2 times" in done.stdout
    assert events(tmp_path / "box") == before


@pytest.fixture
def alive_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has tracked two events without a user, and has written its report."""
    (tmp_path / "app.py").write_text(ALIVE)
    variables = {"THRIVESTACK_ENDPOINT": "http://127.0.0.1:1", "TS_AUTOTRACK_OUTBOX": "box"}
    with subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        report = tmp_path / "box" / f"process-{process.pid}.json"
        wait_until(lambda: report.exists() and '"count":2' in report.read_text(), "the report of both events")
        yield process
        process.communicate("")


ALIVE = """import sys
from ts_autotrack import track
for _ in range(2): track("nobody")
sys.stdin.read()
"""
