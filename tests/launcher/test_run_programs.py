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
        pytest.param([*RUN, PYTHON, "-m", "script"], id="module"),
        pytest.param([*RUN, PYTHON, "script.py", "gevent"], id="gevent"),
        pytest.param(
            [*RUN, PYTHON, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "check_work.py"], id="pytest"
        ),
        pytest.param([*RUN, *RUN, PYTHON, "script.py"], id="twice"),
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
            process.wait(30)
    assert users(inspector) == THREE, log.read_text()
