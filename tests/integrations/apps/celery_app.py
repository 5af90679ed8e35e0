"""A Celery application for tests with real workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import billiard.pool
import celery

from ts_autotrack import track, track_feature
from ts_autotrack.integrations.celery import instrument_celery

FOLDER = Path(os.environ.get("CELERY_TEST_FOLDER", "."))
"""Folder of the files `worked` and `done`, to which each finished task adds a line."""

billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 20
"""Tenths of a second, in place of 30 s, that the end of a child waits for its parent, which may read no more."""

app: Any = celery.Celery("celery_app", broker=os.environ.get("CELERY_TEST_BROKER"))
app.conf.update(worker_hijack_root_logger=False, task_reject_on_worker_lost=True)
instrument_celery(app, properties=["plan"], features={"finish": "finish"})


@track_feature("work", capture=["number"])
@app.task(name="work", bind=True, max_retries=1)
def work(self: Any, number: int) -> None:
    """Retry each third number; then track an event, and publish a nested task."""
    if number % 3 == 0 and not self.request.retries:
        raise self.retry(countdown=0)
    app.send_task("finish", (number,))
    with (FOLDER / "worked").open("a") as file:
        file.write(f"{number}\n")


@app.task(name="finish")
def finish(number: int) -> None:
    """Track one event. The feature of the task makes another event."""
    track("finished", {"number": number})
    with (FOLDER / "done").open("a") as file:
        file.write(f"{number}\n")


@track_feature("late", capture=["number"])
@app.task(name="late", acks_late=True)
def late(number: int) -> None:
    """Kill the process the first time for each fifth number."""
    if number % 5 == 1 and not (FOLDER / f"killed-{number}").exists():
        (FOLDER / f"killed-{number}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with (FOLDER / "done").open("a") as file:
        file.write(f"{number}\n")
