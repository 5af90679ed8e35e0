"""RQ: jobs belong to the user who enqueued them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import redis
from rq import Callback, Queue, Repeat, Retry, get_current_job
from rq.scheduler import RQScheduler

import ts_autotrack
from tests.conftest import Answer, ScriptedServer, run_python, wait_until
from tests.integrations.workers import Queue as RunningQueue
from tests.integrations.workers import work_through_a_restart
from ts_autotrack import bind_user, current_user, track, user_context
from ts_autotrack.integrations._messages import HEADER
from ts_autotrack.integrations.rq import TrackedJob, TrackedQueue, TrackedSimpleWorker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Inspector, Request


class AppJob(TrackedJob):
    """A job class with features and properties."""

    features: ClassVar = {f"{__name__}.{name}": name for name in ("succeed", "fail", "again")}
    properties = ("plan",)


@pytest.fixture
def queue(redis_url: str) -> Queue:
    """An empty queue."""
    return TrackedQueue(connection=redis.Redis.from_url(redis_url), job_class=AppJob)


@pytest.fixture
def sync_queue(redis_url: str) -> Queue:
    """A queue that runs each job inside `enqueue`."""
    return TrackedQueue(connection=redis.Redis.from_url(redis_url), job_class=AppJob, is_async=False)


def run(queue: Queue) -> None:
    """Run all jobs in this process."""
    TrackedSimpleWorker([queue], connection=queue.connection, job_class=AppJob).work(burst=True, with_scheduler=False)


def events(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return name, user and plan of all events."""
    assert ts_autotrack.flush()
    return [
        (item["properties"].get("feature_name", item["event_name"]), item["user_id"], item["properties"].get("plan"))
        for item in inspector.items()
    ]


def succeed() -> None:
    """Do a job."""
    track("used")


def fail() -> None:
    """Fail, with another user bound."""
    track("tried")
    bind_user("wrong")
    raise LookupError


def again() -> Retry:
    """Ask for another attempt."""
    track("tried")
    return Retry(max=1)


async def succeed_async() -> None:
    """Do a job on an event loop."""
    await asyncio.sleep(0)
    track("used_async")


def log_in() -> None:
    """Bind a user for the rest of the job."""
    bind_user("bound")


def enqueue_another() -> None:
    """Enqueue a job in a job."""
    job = get_current_job()
    assert job is not None
    TrackedQueue(connection=job.connection, job_class=AppJob).enqueue(succeed)


def note_success(*_: object) -> None:
    """Be called after a success."""
    track("callback")


def test_job_belongs_to_its_enqueuer(inspector: Inspector, queue: Queue) -> None:
    """User, account and named properties arrive; nothing is left for the next job in the same process."""
    for name in ("ann", "bob"):
        with user_context(name, group_id="acme", plan="pro", secret="x"):
            job = queue.enqueue(succeed, meta={"own": 1})
            queue.enqueue(succeed_async)
        queue.enqueue(log_in)
        queue.enqueue(succeed)
        assert "secret" not in job.meta[HEADER]
        assert job.meta["own"] == 1
    run(queue)
    assert events(inspector) == [
        (event, name, "pro") for name in ("ann", "bob") for event in ("used", "succeed", "used_async")
    ]
    assert {item["context"]["group_id"] for item in inspector.items()} == {"acme"}
    assert current_user().user_id is None


def test_one_meta_for_the_jobs_of_several_users(inspector: Inspector, queue: Queue) -> None:
    """A `meta` that the application passes several times, or takes from another job, gives no user to later jobs."""
    meta: dict[str, Any] = {"own": 1}
    for name in ("ann", "", "bob"):
        with user_context(name or None):
            job = queue.enqueue(succeed, meta=meta)
    queue.enqueue(succeed, meta=job.meta)
    run(queue)
    assert [event for event in events(inspector) if event[0] == "used"] == [
        ("used", "ann", None),
        ("used", "bob", None),
    ]
    assert meta == {"own": 1}


def test_features_of_successful_jobs(inspector: Inspector, queue: Queue) -> None:
    """A job that raises, or returns `Retry`, sends no feature; each attempt has the first user."""
    with user_context("ann"):
        queue.enqueue(fail, retry=Retry(max=1))
        queue.enqueue(again)
    run(queue)
    assert events(inspector) == [("tried", "ann", None)] * 4


def test_nested_dependent_repeated_and_later_jobs(inspector: Inspector, queue: Queue) -> None:
    """A job enqueued in a job, after another job, again, or all at once has the user of its enqueuer."""
    with user_context("ann"):
        first = queue.enqueue(succeed_async)
    with user_context("bob"):
        queue.enqueue(succeed, depends_on=first)
        queue.enqueue(enqueue_another)
    with user_context("cid"):
        queue.enqueue(succeed_async, repeat=Repeat(times=1))
        queue.enqueue_many([Queue.prepare_data(succeed)])
        queue.enqueue_in(timedelta(0), succeed)
    scheduler = RQScheduler([queue], connection=queue.connection)
    scheduler.acquire_locks()
    scheduler.enqueue_scheduled_jobs()
    run(queue)
    found = sorted((event, user) for event, user, _ in events(inspector) if event != "succeed")
    assert found == [
        *[("used", "bob")] * 2,
        *[("used", "cid")] * 2,
        *[("used_async", user) for user in ("ann", "cid", "cid")],
    ]


def test_sync_queue_leaves_the_caller_as_it_was(inspector: Inspector, sync_queue: Queue) -> None:
    """A user bound in a job that runs inside `enqueue` ends with the job."""
    with user_context("ann"):
        sync_queue.enqueue(log_in)
        track("after")
        sync_queue.enqueue(succeed, on_success=Callback(note_success))
    assert [event[:2] for event in events(inspector)] == [
        ("after", "ann"),
        ("used", "ann"),
        ("succeed", "ann"),
        ("callback", "ann"),
    ]


def test_callbacks_belong_to_the_user(inspector: Inspector, queue: Queue) -> None:
    """Callbacks after a success or a failure start with the user of the job."""
    with user_context("ann"):
        queue.enqueue(succeed_async, on_success=Callback(note_success))
        queue.enqueue(fail, on_failure=Callback(note_success))
    queue.enqueue(log_in, on_success=Callback(note_success))
    run(queue)
    assert [event[:2] for event in events(inspector)] == [
        *(("used_async", "ann"), ("callback", "ann")),
        *(("tried", "ann"), ("callback", "ann")),
    ]


def test_foreign_meta_is_nobody(inspector: Inspector, queue: Queue) -> None:
    """A `meta` entry of the same name with anything else in it names nobody."""
    values: list[Any] = [5, [], "no JSON", {"user_id": "ann"}]
    for value in values:
        job = queue.create_job(succeed)
        job.meta[HEADER] = value
        queue.enqueue_job(job)
    run(queue)
    assert events(inspector) == []


def test_mistakes_raise_when_the_class_is_made() -> None:
    """Features and properties are checked before any job runs."""
    with pytest.raises(ValueError, match="job's function"):
        type("Bad", (TrackedJob,), {"features": {"": "export"}})
    with pytest.raises(TypeError, match="properties="):
        type("Bad", (TrackedJob,), {"properties": "plan"})


CLASSES = "--job-class tests.integrations.apps.rq_jobs.AppJob --worker-class ts_autotrack.integrations.rq.TrackedWorker"


class RestartedQueue(RunningQueue):
    """A queue whose jobs are queued again that workers have left behind, as an operator would do.

    RQ leaves a job in the queue's "intermediate" list if its worker ends between taking the job and starting it.
    """

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Queue the jobs that were left behind; run workers."""
        queue = Queue("default", connection=self.redis)
        left = queue.intermediate_queue.get_job_ids()
        for job_id in (*left, *queue.started_job_registry.get_job_ids(), *queue.failed_job_registry.get_job_ids()):
            self.redis.lrem(queue.intermediate_queue_key, 0, job_id)
            queue.push_job_id(job_id)
        with super().working():
            yield


@pytest.mark.slow
@pytest.mark.parametrize("durable", [False, True])
def test_workers_under_load(inspector: Inspector, redis_url: str, tmp_path: Path, *, durable: bool) -> None:
    """Two workers with a process per job, retries, nested and dependent jobs, a restart: each event is right.

    Without an outbox each work horse delivers; with one, the workers do.
    """
    command = f"rq.cli worker-pool default --num-workers 2 --url {{url}} {CLASSES}"
    outbox = {"TS_AUTOTRACK_OUTBOX": str(tmp_path)} if durable else {}
    queue = RestartedQueue(inspector, redis_url, "rq_jobs", command, **outbox)
    arrived = (lambda: not queue.differences(inspector)) if durable else None
    work_through_a_restart(queue, 24, arrived)
    assert queue.differences(inspector) == []


@pytest.mark.slow
def test_worker_delivers_for_its_work_horses(server: ScriptedServer, redis_url: str, tmp_path: Path) -> None:
    """Events that a work horse could not deliver arrive by the worker, without another job and with the same id."""
    server.always = lambda _: Answer(503)
    command = f"rq.cli worker --url {{url}} {CLASSES}"
    queue = RunningQueue(server, redis_url, "rq_jobs", command, TS_AUTOTRACK_OUTBOX=str(tmp_path))
    with queue.working():
        queue.publish(5)
        queue.wait_for(5)
        wait_until(lambda: server.requests, "a work horse tries")
        refused = len(server.requests)
        server.always = None
        users = {f"user-{number}" for number in range(1, 5)}
        wait_until(lambda: {item["user_id"] for item in items_after(server, refused)} == users, "all arrive", 30)
    assert len({item["context"]["event_id"] for item in server.items}) == len(users)


@pytest.mark.slow
def test_work_horse_waits_for_the_answer_to_its_request(server: ScriptedServer, tmp_path: Path) -> None:
    """With an outbox, too, and after a job whose end came before its request: no event is sent twice."""
    ended = tmp_path / "ended"
    code = f"""
import pathlib, time
from ts_autotrack import stats, track
from ts_autotrack._core.process import shutdown
from ts_autotrack.integrations.rq import deliver_of_horse

shutdown.LEAVE_TIMEOUT = 30.0  # for slow machines
track("used", user_id="ann")
while WAITS and not stats().in_flight:
    time.sleep(0.01)
deliver_of_horse()
print(stats().pending)
pathlib.Path({str(ended)!r}).touch()
"""

    def answer(request: Request) -> Answer:
        late = lambda: time.monotonic() > request.at + 2  # noqa: E731 - longer than the commit to the outbox
        wait_until(lambda: ended.exists() or late(), "the work horse ends, or waits")
        return Answer()

    environment = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "TS_AUTOTRACK_EXIT_TIMEOUT": "30"}
    for waits in (False, True):
        done = run_python(f"WAITS = {waits}\n{code}", THRIVESTACK_ENDPOINT=server.endpoint, **environment)
        server.always = answer
        ended.unlink()
    assert done.stdout == "0\n", done.stderr
    assert len(server.items) == len({item["context"]["event_id"] for item in server.items}) == 2


def items_after(server: ScriptedServer, number: int) -> list[dict[str, Any]]:
    """Return the items of all requests but the first ones."""
    return [item for request in server.requests[number:] for item in request.items]
