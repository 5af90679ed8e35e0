"""RQ 2 and 3: each job belongs to the user acting when it was enqueued.

RQ has no middleware. Its public hooks are the classes of jobs, queues and workers, which every entry point takes by
name.

Example:
    ::

        queue = TrackedQueue("default", connection=Redis())

        # rq worker --job-class ts_autotrack.integrations.rq.TrackedJob
        #           --worker-class ts_autotrack.integrations.rq.TrackedWorker
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, ClassVar

from rq import Queue, Retry, SimpleWorker, Worker
from rq.job import Job

from ts_autotrack import flush, shutdown
from ts_autotrack.integrations._features import feature_uses
from ts_autotrack.integrations._messages import HEADER, Carrier, MessageScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class TrackedJob(Job):
    """Job that carries the acting user in `meta["ts_autotrack"]`, and opens a block around its function.

    A job starts with the user acting when it was created: in any process, in each retry and repetition, scheduled, or
    dependent on another job. `bind_user` inside holds until the function's end. Callbacks start with the same user. A
    queue with `is_async=False` leaves the caller's identity as it was.

    For features and properties make a subclass, and name it wherever this class would stand; a mistake raises a
    ValueError or TypeError when the subclass is made.

    Attributes:
        features: Names of features by the name of a job's function. The event is sent after a job that raised nothing
            and returned no `Retry`.
        properties: Names of properties, or of fields of the context such as `session_id`, that go along. All others
            stay in the process that enqueues.

    Example:
        ::

            class AppJob(TrackedJob):
                features = {"myapp.jobs.export": "report_export"}

            queue = TrackedQueue(job_class=AppJob, connection=Redis())  # rq worker --job-class myapp.queues.AppJob
    """

    features: ClassVar[Mapping[str, str]] = {}
    properties: ClassVar[Iterable[str]] = ()
    _uses: ClassVar[Mapping[str, Callable[[], None]]] = {}
    _carrier: ClassVar[Carrier] = Carrier()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._uses = feature_uses(cls.features, "job's function")
        cls._carrier = Carrier(cls.properties)

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Job:
        """Create a job of the acting user."""
        job = super().create(*args, **kwargs)
        # A new mapping: the application may pass one `meta` to the jobs of several users, or that of another job.
        job.meta = {name: value for name, value in job.meta.items() if name != HEADER}
        if header := cls._carrier.header():
            job.meta[HEADER] = header
        return job

    def perform(self) -> Any:
        """Run the function inside the job's block."""
        with scope_of(self):
            result = super().perform()
            if not isinstance(result, Retry) and (use := self._uses.get(self.func_name or "")):
                use()
            return result

    @property
    def success_callback(self) -> Any:
        """The application's callback, inside a block of its own."""
        return inside(self, super().success_callback)

    @property
    def failure_callback(self) -> Any:
        """The application's callback, inside a block of its own."""
        return inside(self, super().failure_callback)

    @property
    def stopped_callback(self) -> Any:
        """The application's callback, inside a block of its own."""
        return inside(self, super().stopped_callback)


def scope_of(job: Job) -> MessageScope:
    """Return the block around the function of a job, or around a callback."""
    return MessageScope(job.meta.get(HEADER) if isinstance(job.meta, dict) else None)


def inside(job: Job, callback: Any) -> Any:
    """Return the callback of a job, inside a block of its own."""
    if callback is None or inspect.iscoroutinefunction(callback):  # which RQ refuses
        return callback

    @functools.wraps(callback)
    def call(*args: Any, **kwargs: Any) -> Any:
        with scope_of(job):
            return callback(*args, **kwargs)

    return call


class TrackedQueue(Queue):
    """Queue whose jobs are a `TrackedJob`, unless `job_class` names another class."""

    job_class = TrackedJob


class TrackedWorkerMixin:
    """For worker classes of your own: delivers the events of work horses, which end by `os._exit`, past all exit hooks.

    Without an outbox a work horse delivers its events before it ends, within EXIT_TIMEOUT. With an outbox it waits for
    the server for half a second at most, and the worker, which lives on, delivers the rest within about 5 seconds;
    after a wait in vain no work horse waits for a minute. A work horse that is killed keeps nothing but the events on
    disk.
    """

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work, and deliver the events that work horses leave in the outbox."""
        deliver_before_work()
        done: bool = super().work(*args, **kwargs)  # type: ignore[misc]  # RQ's
        return done

    def perform_job(self, *args: Any, **kwargs: Any) -> bool:
        """Perform a job; at the end of a work horse, deliver its events."""
        try:
            done: bool = super().perform_job(*args, **kwargs)  # type: ignore[misc]  # RQ's
            return done
        finally:
            if self.is_horse:  # type: ignore[attr-defined]  # RQ's
                deliver_of_horse()


def deliver_before_work() -> None:
    """Begin to deliver the events that work horses leave in the outbox."""
    flush(0)


def deliver_of_horse() -> None:
    """Deliver the events of a work horse at its end, or leave them in the outbox.

    A wait of 0 s counts as a wait in vain: the work horses of the next minute would give up requests in progress, and
    the worker would send the same events again. Measured with jobs of 20 ms: more than half of the events came twice.
    """
    shutdown(durable=True)


class TrackedWorker(TrackedWorkerMixin, Worker):
    """RQ's `Worker`, for TrackedJob: see `TrackedWorkerMixin`."""

    job_class = TrackedJob
    queue_class = TrackedQueue


class TrackedSimpleWorker(TrackedWorkerMixin, SimpleWorker):
    """RQ's `SimpleWorker`, which runs jobs in its own process, for TrackedJob."""

    job_class = TrackedJob
    queue_class = TrackedQueue
