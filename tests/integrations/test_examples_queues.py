"""The examples of task queues run with their workers, and their events arrive."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.integrations.load import ROOT

if TYPE_CHECKING:
    from tests.conftest import Inspector

EXAMPLES = ROOT / "examples"
CLASSES = "--job-class app.AppJob --worker-class ts_autotrack.integrations.rq.TrackedWorker"
WORKERS = {
    "dramatiq_app": "dramatiq app --processes 1 --threads 2",
    "rq_app": f"rq.cli worker --url {{url}} --path . {CLASSES}",
    "taskiq_app": "taskiq worker app:broker --workers 1",
    "faststream_app": "faststream run app:app",
}


@pytest.mark.parametrize("example", WORKERS)
def test_example_is_short(example: str) -> None:
    """The application has less than 60 lines."""
    assert len((EXAMPLES / example / "app.py").read_text().splitlines()) < 60


@pytest.mark.slow
@pytest.mark.parametrize("example", WORKERS)
def test_example_s_events_arrive(inspector: Inspector, redis_url: str, example: str) -> None:
    """The export and the mail that the export sends arrive with user and account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTO", "THRIVESTACK"))}
    environment = {**kept, "REDIS_URL": redis_url, "THRIVESTACK_ENDPOINT": inspector.endpoint, "PYTHONPATH": str(ROOT)}
    folder = EXAMPLES / example
    worker = [sys.executable, "-m", *WORKERS[example].format(url=redis_url).split()]
    publisher = ["-c", "import app; app.main()"] if example == "rq_app" else ["app.py"]
    with subprocess.Popen(worker, cwd=folder, env=environment) as process:
        try:
            subprocess.run([sys.executable, *publisher], cwd=folder, env=environment, check=True, timeout=60)
            wait_until(lambda: len(inspector.get()) == 2, "both events arrive", 60)
        finally:
            process.terminate()
    found = {
        (item["properties"]["feature_name"], item["user_id"], item["context"]["group_id"]) for item in inspector.items()
    }
    assert found == {("report_export", "ann", "acme"), ("report_mail", "ann", "acme")}
