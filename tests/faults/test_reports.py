"""Reports in the directory of an outbox: their life, and everything that may be in their way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import WAIT_FOR_REST, run_python
from ts_autotrack._core.outbox.paths import measure
from ts_autotrack._core.outbox.reports import ReportFile, remove_stale, report_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

PROCESS = """
import json, os, pathlib, signal, sys, time
import ts_autotrack
from ts_autotrack import track
directory = pathlib.Path(os.environ["TS_AUTOTRACK_OUTBOX"])
def report():  # of this process, once it is there
    path = directory / f"process-{os.getpid()}.json"
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return json.loads(path.read_text())
"""


@pytest.mark.slow
def test_each_process_has_its_own_report(alive: dict[str, str], outbox: Path, cli: Callable[..., str]) -> None:
    """A report is there from the first dropped event to the end of its process, and a forked child has its own.

    The outbox counts no report as events. A killed process leaves its report; the next process removes it.
    """
    code = f"""{PROCESS}{WAIT_FOR_REST}
track("nobody")
found = report()
assert (found["pid"], found["drops"], found["unattributed"][0]["count"]) == (os.getpid(), {{"unattributed": 1}}, 1)
wait_for_rest()
child = os.fork()
if child == 0:
    track("child")
    found = report()
    assert (found["pid"], [place["event"] for place in found["unattributed"]]) == (os.getpid(), ["child"])
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert [path.name for path in directory.glob("process-*")] == [f"process-{{os.getpid()}}.json"]
print(oct((directory / f"process-{{os.getpid()}}.json").stat().st_mode & 0o777))
if "die" in sys.argv: os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python(code, **alive)
    assert (done.stdout, done.returncode) == ("0o600\n", 0), done.stderr
    assert list(outbox.iterdir()) == []
    done = run_python(f"import sys; sys.argv.append('die'){code}", **alive)
    assert done.stdout == "0o600\n", done.stderr
    assert len(list(outbox.iterdir())) == 1
    assert measure(str(outbox)) == {}
    assert report_files(str(outbox)) == []
    assert "process-" not in cli("status")
    run_python("import ts_autotrack; ts_autotrack.track('e', user_id='u'); ts_autotrack.flush(10)", **alive)
    assert list(outbox.iterdir()) == []


def test_stale_reports_are_known(tmp_path: Path) -> None:
    """A report is stale if its process has ended, or if its id belongs to a later process; other files stay."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    directory = str(tmp_path)
    ReportFile(directory).write(b"{}")
    own = tmp_path / f"process-{os.getpid()}.json"
    stale = [tmp_path / f"process-{ended.pid}.json", tmp_path / f"process-{ended.pid}.json.new"]
    stale.append(tmp_path / "process-9999999999.json")
    foreign = [tmp_path / "process-1.json.txt", tmp_path / "process-x.json", tmp_path / "notes.txt"]
    for path in (*stale, *foreign):
        path.write_text("{}")
    assert report_files(directory) == [str(own)]
    remove_stale(directory)
    assert set(tmp_path.iterdir()) == {own, *foreign}
    os.utime(own, (1, 1))  # written before this process began
    assert report_files(directory) == []
    remove_stale(directory)
    assert not own.exists()
    remove_stale(str(tmp_path / "missing"))


def test_report_replaces_the_last_one(tmp_path: Path) -> None:
    """A report is replaced as a whole, also beside the unfinished report of an ended process with the same id."""
    file = ReportFile(str(tmp_path / "made" / "by it"))
    path = tmp_path / "made" / "by it" / f"process-{os.getpid()}.json"
    file.write(b"first")
    Path(f"{path}.new").write_text("unfinished")
    file.write(b"second")
    assert path.read_bytes() == b"second"
    assert file.exists
    file.remove()
    file.remove()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("obstacle", ["a file as directory", "a directory as file"])
def test_disk_without_a_place_for_the_report(tmp_path: Path, obstacle: str) -> None:
    """A report that cannot be written is left out, without an error and without an unfinished file."""
    if obstacle == "a file as directory":
        (tmp_path / "outbox").write_text("")
    else:
        (tmp_path / "outbox" / f"process-{os.getpid()}.json").mkdir(parents=True)
    ReportFile(str(tmp_path / "outbox")).write(b"{}")
    assert not list(tmp_path.rglob("*.new"))


LIMITED = f"""{PROCESS}
import resource
track("nobody"); ts_autotrack.flush(10)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from ts_autotrack._core.outbox.reports import ReportFile
full = str(directory) + "-full"  # not where the process itself writes reports
ReportFile(full).write(b"x" * 10_000)
print(os.listdir(full), ts_autotrack.flush(10))
"""


@pytest.mark.slow
def test_full_disk_means_no_report(inspector: Inspector, alive: dict[str, str]) -> None:
    """A report that the disk does not take as a whole is not there at all."""
    del inspector
    done = run_python(LIMITED, **alive)
    assert done.stdout == "[] True\n", done.stderr
    assert "report" not in done.stderr


def test_reports_are_json(tmp_path: Path) -> None:
    """A report file holds the bytes of the report, for `json.loads`."""
    ReportFile(str(tmp_path)).write(b'{"pid": 1}')
    (path,) = report_files(str(tmp_path))
    assert json.loads(Path(path).read_text()) == {"pid": 1}
