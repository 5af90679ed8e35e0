"""Command lines in processes of their own: users, exit status, and the time that a dead server costs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.conftest import run_python
from tests.integrations.load import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Inspector

EXAMPLE = ROOT / "examples" / "click_app"
PROGRAM = """
import atexit, os, sys, time, click
marks = []
atexit.register(lambda: print(time.monotonic() - marks[0]))  # runs after the library's hook
from ts_autotrack.integrations.click import instrument_click
@click.group()
def tool(): ...
@tool.command()
@click.argument("status", type=int)
def run(status):
    atexit.register(lambda: marks.append(time.monotonic()))  # runs before
    if status: sys.exit(status)
instrument_click(tool, user=lambda: (os.environ["APP_USER"], "account-" + os.environ["APP_USER"]))
tool(["run", os.environ.get("APP_STATUS", "0")])
"""


@pytest.fixture
def hanging() -> Iterator[str]:
    """An endpoint that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_each_run_has_its_own_user(inspector: Inspector) -> None:
    """6 programs, 3 at a time: those with exit status 0 make one event each, of their user."""

    def run(number: int) -> int:
        settings = {"APP_USER": f"user-{number}", "APP_STATUS": str(number % 3)}
        return run_python(PROGRAM, THRIVESTACK_ENDPOINT=inspector.endpoint, **settings).returncode

    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(run, range(6)))
    assert statuses == [number % 3 for number in range(6)]
    found = sorted((item["user_id"], item["context"]["group_id"]) for item in inspector.items())
    assert found == sorted((f"user-{number}", f"account-user-{number}") for number in range(0, 6, 3))


@pytest.mark.slow
@pytest.mark.parametrize("timeout", ["0", "0.5", "2"])
def test_hanging_server_costs_no_more_than_the_setting(hanging: str, timeout: str) -> None:
    """The end of the program waits for EXIT_TIMEOUT at most."""
    done = run_python(PROGRAM, THRIVESTACK_ENDPOINT=hanging, APP_USER="ann", TS_AUTOTRACK_EXIT_TIMEOUT=timeout)
    assert done.returncode == 0
    assert float(done.stdout) < float(timeout) + 1.5  # a busy machine is late


@pytest.mark.slow
def test_with_an_outbox_the_next_run_sends(inspector: Inspector, hanging: str, tmp_path: Path) -> None:
    """With an outbox one program waits half a second for a dead server, and may say so; the next ones do neither."""
    settings = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "TS_AUTOTRACK_EXIT_TIMEOUT": "60", "APP_USER": "ann"}
    runs = [run_python(PROGRAM, THRIVESTACK_ENDPOINT=hanging, **settings) for _ in range(3)]
    assert [done.returncode for done in runs] == [0] * 3
    assert [done.stderr for done in runs[1:]] == [""] * 2
    first, *others = (float(done.stdout) for done in runs)
    assert max(others) < first < 30
    (tmp_path / "outbox" / "unanswered").unlink()  # a minute is over
    done = run_python(PROGRAM, THRIVESTACK_ENDPOINT=inspector.endpoint, **{**settings, "APP_USER": "bob"})
    assert done.stderr == ""
    assert sorted(item["user_id"] for item in inspector.items()) == ["ann", "ann", "ann", "bob"]


@pytest.mark.slow
def test_program_too_slow_for_a_request_has_waited_in_vain(hanging: str, tmp_path: Path) -> None:
    """With an outbox only the first of several programs waits, also if it comes to no request meanwhile."""
    slow = f"""
import httpx, time
opens = httpx.Client.__init__
def opens_slowly(*args, **kwargs):
    time.sleep(0.7)
    opens(*args, **kwargs)
httpx.Client.__init__ = opens_slowly
{PROGRAM}"""
    settings = {"TS_AUTOTRACK_OUTBOX": str(tmp_path), "TS_AUTOTRACK_EXIT_TIMEOUT": "60", "APP_USER": "ann"}
    assert run_python(slow, THRIVESTACK_ENDPOINT=hanging, **settings).stderr == ""  # no request has been made
    assert (tmp_path / "unanswered").exists()
    done = run_python(PROGRAM, THRIVESTACK_ENDPOINT=hanging, **settings)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_with_an_outbox_and_a_server_every_run_delivers(inspector: Inspector, tmp_path: Path) -> None:
    """A short program's event arrives with its own run, once."""
    settings = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "APP_USER": "ann"}
    for count in range(1, 4):
        run_python(PROGRAM, THRIVESTACK_ENDPOINT=inspector.endpoint, **settings)
        assert len(inspector.items()) == count


@pytest.mark.slow
@pytest.mark.parametrize("outbox", [False, True])
def test_events_of_exit_hooks_are_kept(inspector: Inspector, tmp_path: Path, outbox: bool) -> None:  # noqa: FBT001 - a parameter
    """Events of earlier registered exit hooks arrive, with this run of the program or with the next run."""
    code = f"""
import atexit, ts_autotrack
atexit.register(ts_autotrack.track, "first", user_id="ann", group_id="g")
{PROGRAM}"""
    hooked = code.replace(
        "@click.group()", 'atexit.register(ts_autotrack.track, "second", user_id="ann", group_id="g")\n@click.group()'
    )
    settings = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox")} if outbox else {}
    done = run_python(hooked, THRIVESTACK_ENDPOINT=inspector.endpoint, APP_USER="ann", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    if outbox:
        run_python(PROGRAM, THRIVESTACK_ENDPOINT=inspector.endpoint, APP_USER="ann", APP_STATUS="1", **settings)
        run_python("import ts_autotrack; ts_autotrack.flush(10)", THRIVESTACK_ENDPOINT=inspector.endpoint, **settings)
    assert sorted(item["event_name"] for item in inspector.items()) == ["feature_used", "first", "second"]


@pytest.mark.slow
def test_exit_hooks_wait_for_no_dead_server(hanging: str, tmp_path: Path) -> None:
    """With an outbox the events of exit hooks do not delay the end of the program by EXIT_TIMEOUT."""
    hooked = PROGRAM.replace(
        "@click.group()", 'atexit.register(ts_autotrack.track, "late", user_id="ann", group_id="g")\n@click.group()'
    )
    settings = {"TS_AUTOTRACK_OUTBOX": str(tmp_path), "TS_AUTOTRACK_EXIT_TIMEOUT": "60", "APP_USER": "ann"}
    done = run_python(f"import ts_autotrack\n{hooked}", THRIVESTACK_ENDPOINT=hanging, **settings)
    assert done.returncode == 0
    assert float(done.stdout) < 30


def test_import_loads_no_framework() -> None:
    """The integration imports neither click nor Typer. The program imports its own framework."""
    code = "import sys; import ts_autotrack.integrations.click; print({'click', 'typer'} & set(sys.modules))"
    assert run_python(code).stdout == "set()\n"


def test_example_is_short() -> None:
    """The application has less than 60 lines."""
    assert len((EXAMPLE / "app.py").read_text().splitlines()) < 60


@pytest.mark.slow
def test_example_s_events_arrive(inspector: Inspector) -> None:
    """The example's commands arrive with user and account; help and failures do not."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    environment = {**kept, "THRIVESTACK_ENDPOINT": inspector.endpoint, "REPORTS_TOKEN": "ann-token"}
    statuses = []
    for line in ("report export 1 --format csv", "report export 9", "report --help", "ls", "whoami"):
        command = [sys.executable, str(EXAMPLE / "app.py"), *line.split()]
        statuses.append(subprocess.run(command, env=environment, capture_output=True, check=False).returncode)
    assert statuses == [0, 1, 0, 0, 0]
    found = {
        (
            item["properties"]["feature_name"],
            item["properties"]["interface"],
            item["user_id"],
            item["context"]["group_id"],
        )
        for item in inspector.items()
    }
    assert found == {("csv_export", "cli", "ann", "acme"), ("list_reports", "cli", "ann", "acme")}
    assert len(inspector.items()) == 2
