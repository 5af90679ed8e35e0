"""Jobs of the RQ application under test, its classes, and its publisher."""

from __future__ import annotations

from rq import Retry, get_current_job

from tests.integrations.apps import queue_work
from ts_autotrack.integrations.rq import TrackedJob, TrackedQueue


class AppJob(TrackedJob):
    """The application's job class: its properties go along."""

    properties = queue_work.PROPERTIES


queue = TrackedQueue(connection=queue_work.notes, job_class=AppJob)


def work(number: int) -> None:
    """Do the work: in the second attempt, in a job of its own, after another job, or here."""
    job = get_current_job()
    queue_work.fail_once(number, first=job is not None and job.retries_left is not None and job.retries_left > 0)
    if number % 4 == 2:
        queue.enqueue(finish, number)
    elif number % 4 == 3:
        queue.enqueue(finish, number, depends_on=queue.enqueue(rest))
    else:
        queue_work.work(number)


def finish(number: int) -> None:
    """Do the work of a nested or dependent job."""
    queue_work.work(number)


def rest() -> None:
    """Do nothing."""


def publish(number: int) -> None:
    """Enqueue the job of a number."""
    queue.enqueue(work, number, retry=Retry(max=1) if number % 4 == 1 else None)
