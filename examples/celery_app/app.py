"""A Celery application: a task belongs to the user for whom it was published."""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery

from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.celery import instrument_celery

app: Any = Celery("app", broker=os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0"))
app.conf.worker_hijack_root_logger = False
instrument_celery(app, features={"reports.export": "report_export"})


@app.task(name="reports.export")
def export(number: int) -> None:
    """Export a report: an event of the feature `report_export`, by its name in `features` above."""
    notify.delay(number)


@app.task(name="reports.notify", bind=True, max_retries=1)
@track_feature("report_notification", capture=["number"])
def notify(self: Any, number: int) -> None:
    """Send a mail: the first attempt is retried and makes no event, the second one makes an event of the same user."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    print(f"Report {number} is ready.")


def publish(user: str, account: str, number: int) -> None:
    """Publish a task as a request of your web application does, whose user is known by its own integration."""
    with user_context(user, group_id=account):
        export.delay(number)


if __name__ == "__main__":
    publish(sys.argv[1], sys.argv[2], int(sys.argv[3]))
