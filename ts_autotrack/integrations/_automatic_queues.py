"""Automatic integrations of task queues, message brokers and threads: Celery, Dramatiq, Taskiq, FastStream and RQ.

An integration that the application adds itself takes the place of the automatic one.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from ts_autotrack.integrations._patches import attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ts_autotrack.integrations._patches import Patches

    Features = Mapping[str, str]


def track_celery(patches: Patches, features: Features) -> None:
    """Track the tasks of all apps for which the application has not called `instrument_celery`."""
    del patches  # Celery has signals
    from ts_autotrack.integrations.celery import instrument_all

    instrument_all(features)


def track_dramatiq(patches: Patches, features: Features) -> None:
    """Give each new broker the middleware, as its first."""
    from dramatiq import Broker

    from ts_autotrack.integrations.dramatiq import TrackingMiddleware

    class AutomaticMiddleware(TrackingMiddleware):
        pass

    AutomaticMiddleware(features=features)  # a mistake is told now

    def add(broker: Any) -> None:
        present = broker.middleware
        if not any(isinstance(middleware, TrackingMiddleware) for middleware in present):
            broker.add_middleware(AutomaticMiddleware(features=features), before=type(present[0]) if present else None)

    def give_way(original: Any, broker: Any, args: Any, kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get("middleware")
        if isinstance(given, TrackingMiddleware) and not isinstance(given, AutomaticMiddleware):
            present = broker.middleware
            present[:] = [middleware for middleware in present if not isinstance(middleware, AutomaticMiddleware)]
        return original(*args, **kwargs)

    patches.add(Broker, "add_middleware", give_way)
    patches.after(Broker, "__init__", add)


def track_taskiq(patches: Patches, features: Features) -> None:
    """Give each new broker the middleware, as its first."""
    from taskiq import AsyncBroker

    from ts_autotrack.integrations.taskiq import TrackingMiddleware

    class AutomaticMiddleware(TrackingMiddleware):
        automatic = True

    AutomaticMiddleware(features=features)  # a mistake is told now
    patches.after(
        AsyncBroker, "__init__", lambda broker: broker.add_middlewares(AutomaticMiddleware(features=features))
    )


def track_faststream(patches: Patches, features: Features) -> None:
    """Give each new broker the middleware, as its outermost. FastStream names no features."""
    del features
    from faststream import BaseMiddleware
    from faststream._internal.broker import BrokerUsecase

    from ts_autotrack.integrations.faststream import TrackingMiddleware

    class AutomaticMiddleware(TrackingMiddleware):
        def __init__(self, broker: Any) -> None:
            super().__init__()
            self._broker = weakref.ref(broker)

        def __call__(self, msg: Any, /, *, context: Any) -> BaseMiddleware[Any, Any]:
            present = getattr(self._broker(), "middlewares", ())
            if any(isinstance(other, TrackingMiddleware) and other is not self for other in present):
                return BaseMiddleware(msg, context=context)
            return super().__call__(msg, context=context)

    patches.after(BrokerUsecase, "__init__", lambda broker: broker.insert_middleware(AutomaticMiddleware(broker)))


def track_rq(patches: Patches, features: Features) -> None:
    """Track jobs of all classes: the methods of RQ's own classes do what `TrackedJob` and `TrackedWorker` do."""
    _track_jobs(patches, features)
    _track_workers(patches)


def _track_jobs(patches: Patches, features: Features) -> None:
    from rq import Retry
    from rq.job import Job

    from ts_autotrack.integrations._features import feature_uses
    from ts_autotrack.integrations._messages import HEADER, Carrier
    from ts_autotrack.integrations.rq import TrackedJob, inside, scope_of

    uses, carrier = feature_uses(features, "job's function"), Carrier()

    def write(job: Any) -> None:
        job.meta = {name: value for name, value in job.meta.items() if name != HEADER}
        if header := carrier.header():
            job.meta[HEADER] = header

    def create(original: Any, kind: Any, args: Any, kwargs: Any) -> Any:
        job = original(*args, **kwargs)
        if not issubclass(kind, TrackedJob):
            attempt("rq", write, job)
        return job

    def perform(original: Any, job: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(job, TrackedJob):
            return original(*args, **kwargs)
        with scope_of(job):
            result = original(*args, **kwargs)
            if not isinstance(result, Retry) and (use := uses.get(job.func_name or "")):
                use()
            return result

    patches.add(Job, "create", create)
    patches.add(Job, "perform", perform)
    for name in ("success_callback", "failure_callback", "stopped_callback"):
        patches.change_property(
            Job, name, lambda job, callback: callback if isinstance(job, TrackedJob) else inside(job, callback)
        )


def _track_workers(patches: Patches) -> None:
    from rq import Worker

    from ts_autotrack.integrations.rq import TrackedWorkerMixin, deliver_before_work, deliver_of_horse

    def work(original: Any, worker: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(worker, TrackedWorkerMixin):
            attempt("rq", deliver_before_work)
        return original(*args, **kwargs)

    def perform_job(original: Any, worker: Any, args: Any, kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        finally:
            if not isinstance(worker, TrackedWorkerMixin) and worker.is_horse:
                attempt("rq", deliver_of_horse)

    for name, wrapper in (("work", work), ("perform_job", perform_job)):
        owner = next(base for base in Worker.__mro__ if name in vars(base))
        patches.add(owner, name, wrapper)


def track_threads(patches: Patches, features: Features) -> None:
    """Carry the user into threads."""
    del patches, features
    from ts_autotrack.integrations.threads import instrument_threads

    instrument_threads()
