"""A Celery application on files: `celery -A tasks worker`, and `python tasks.py` publishes three tasks."""

from __future__ import annotations

import os

from celery import Celery
from work import perform

folder = os.environ["BROKER_FOLDER"]
app = Celery("tasks", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder,
    "data_folder_out": folder,
    "control_folder": f"{folder}/control",
}


@app.task
def export(number: int) -> None:
    """Export a report."""
    perform(number)


if __name__ == "__main__":
    for number in range(3):
        app.send_task("tasks.export", (number,))
