"""Reports by RQ: a job class names the user of every job."""

from __future__ import annotations

import os

from redis import Redis

from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.rq import TrackedJob, TrackedQueue


class AppJob(TrackedJob):
    """The application's jobs, with features by the names of their functions."""

    features = {"app.export": "report_export"}  # noqa: RUF012 - read once, when the class is made


redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
queue = TrackedQueue(connection=redis, job_class=AppJob)


def export(number: int) -> None:
    """Export a report: an event by `features` above; a retry after an error keeps the user."""
    queue.enqueue(mail, f"report {number}")


@track_feature("report_mail")
def mail(text: str) -> None:
    """Mail a report: an event of the user who asked for the export."""
    print(f"mailing {text}")


def main() -> None:
    """Ask for an export; in a web application, the integration names the user."""
    with user_context("ann", group_id="acme"):
        queue.enqueue(export, 1)
