"""Events of programs below `ts-autotrack run`: scripts, tests, and workers of a task queue."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.launcher.launched import APPLICATION, PATIENCE, RUN, environment, finish, users

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

THREE = ["user-0", "user-1", "user-2"]
PYTHON = sys.executable
OTEL = "opentelemetry-instrument"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([*RUN, PYTHON, "script.py"], id="script"),
        pytest.param([*RUN, PYTHON, "script.py", "gevent"], id="gevent"),
        pytest.param(
            [*RUN, PYTHON, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "check_work.py"], id="pytest"
        ),
        pytest.param([*RUN, *RUN, PYTHON, "-m", "script"], id="twice, as a module"),
        pytest.param([*RUN, OTEL, "python", "script.py"], id="outside of opentelemetry-instrument"),
        pytest.param([OTEL, *RUN, PYTHON, "script.py"], id="inside of opentelemetry-instrument"),
        pytest.param(
            [*RUN, "sh", "-c", 'for n in 0 1 2; do python -c "import work; work.perform($n)"; done'], id="shell"
        ),
    ],
)
def test_program_is_tracked(inspector: Inspector, command: list[str]) -> None:
    """Each call of the function that the settings file names arrives once, with its user; the program says nothing."""
    output = finish(command, environment(inspector))
    assert users(inspector) == THREE, output
    assert output == "" or "pytest" in command, output


USED_BY_FASTAPI = """
import sys
sys.path.insert(0, sys.argv[1])
import own_work
from fastapi import FastAPI
from starlette.testclient import TestClient
app = FastAPI()
app.get("/{user}")(lambda user: own_work.perform())
with TestClient(app) as client:
    for user in ("user-0", "user-1", "user-2"):
        client.get("/" + user, headers={"X-User": user})
"""
OWN_WORK = """
def perform(): ...
def who(scope): return dict(scope["headers"])[b"x-user"].decode(), "account-1"
"""


@pytest.mark.parametrize("command", [[*RUN, OTEL, "python"], [OTEL, *RUN, PYTHON]])
def test_framework_is_tracked_beside_opentelemetry(inspector: Inspector, tmp_path: Path, command: list[str]) -> None:
    """A framework that no setting names is tracked on either side, also where OpenTelemetry has replaced its class."""
    (tmp_path / "own_work.py").write_text(OWN_WORK)
    (tmp_path / "program.py").write_text(USED_BY_FASTAPI)
    variables = environment(
        inspector, TS_AUTOTRACK_FEATURES="own_work:perform=report_export", TS_AUTOTRACK_USER="own_work:who"
    )
    output = finish([*command, str(tmp_path / "program.py"), str(tmp_path)], variables, tmp_path)
    assert users(inspector) == THREE, output
    assert output == ""


def test_celery_worker_is_tracked(inspector: Inspector, tmp_path: Path) -> None:
    """Tasks that run in the forked children of a Celery worker leave their events once, with their users."""
    variables = environment(inspector, BROKER_FOLDER=str(tmp_path))
    finish([PYTHON, "tasks.py"], variables)
    worker = [*RUN, "celery", "-A", "tasks", "worker", "--concurrency", "2", "--without-mingle", "--without-gossip"]
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(worker, cwd=APPLICATION, env=variables, stdout=file, stderr=file) as process,
    ):
        try:
            wait_until(lambda: len(users(inspector)) >= 3 or process.poll() is not None, "three events", PATIENCE)
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()  # leaving the block waits without a limit
    assert users(inspector) == THREE, log.read_text()
