"""Starts programs of the folder `application` below `ts-autotrack run`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import terminate, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import Inspector

APPLICATION = Path(__file__).parent / "application"
RUN = [sys.executable, "-m", "ts_autotrack.cli", "run", "--"]
PATIENCE = 60.0
"""Seconds to wait for a started program on a busy machine."""


def environment(inspector: Inspector, **variables: str) -> dict[str, str]:
    """Return the environment of a launched program that sends to the inspector."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTO", "THRIVESTACK"))}
    for name in [name for name in kept if name.startswith("PYTEST_")]:
        del kept[name]
    commands = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", "")))
    delivery = {"THRIVESTACK_ENDPOINT": inspector.endpoint, "TS_AUTOTRACK_FLUSH_INTERVAL": "0.05"}
    confirmed = {"TS_AUTOTRACK_BAGGAGE": "1"}
    quiet = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
    return {**kept, "PATH": commands, **quiet, **delivery, **confirmed, **variables}


def finish(command: Sequence[str], variables: dict[str, str], folder: Path = APPLICATION) -> str:
    """Run a command to its end; return its output, both streams in one."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextlib.contextmanager
def serving(
    command: Sequence[str], variables: dict[str, str], port: int, output: Path, folder: Path = APPLICATION
) -> Iterator[None]:
    """Run a server until the block ends; SIGTERM ends it."""
    with (
        output.open("w") as file,
        subprocess.Popen(command, cwd=folder, env=variables, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _answers(port), f"{command} answers", PATIENCE)
            assert process.poll() is None, output.read_text()
            yield
        finally:
            terminate(process)


def get(port: int, path: str) -> None:
    """Send a request to a server; its status is 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=PATIENCE) as answer:
        assert answer.status == 200


def users(inspector: Inspector) -> list[str]:
    """Return the users of all arrived events, once for each event, in alphabetical order."""
    items = inspector.items()
    assert all(item["properties"]["feature_name"] == "report_export" for item in items)
    return sorted(item["user_id"] for item in items)


def _answers(port: int) -> bool:
    try:
        get(port, "")
    except urllib.error.HTTPError:  # an answer, too
        return True
    except OSError:
        return False
    return True
