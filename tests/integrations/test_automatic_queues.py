"""Task queues and brokers, tracked without a line of the application's code."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import dramatiq
import pytest
import redis
import rq
from celery.contrib.testing.worker import start_worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit
from faststream.redis import RedisBroker, TestRedisBroker
from taskiq import InMemoryBroker

from tests.integrations.automatic import events, track, undone
from tests.integrations.test_celery import made_app
from tests.integrations.test_dramatiq import Running
from tests.integrations.test_rq import AppJob, note_success, succeed
from ts_autotrack import track as track_event
from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.celery import instrument_celery
from ts_autotrack.integrations.dramatiq import TrackingMiddleware as DramatiqMiddleware
from ts_autotrack.integrations.faststream import TrackingMiddleware as FastStreamMiddleware
from ts_autotrack.integrations.taskiq import TrackingMiddleware as TaskiqMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

__all__ = ["undone"]

OWN = pytest.mark.parametrize("own", [False, True], ids=["alone", "beside_the_application's_own"])
"""Without and with an integration that the application adds, whose features count."""


def used() -> None:
    """Do a task's work."""
    track_event("used")


def expected(*, own: bool) -> list[tuple[str, str]]:
    """Return the events of two users' tasks."""
    return [("own" if own else "report_export", name) for name in ("ann", "bob")] + [("used", "ann"), ("used", "bob")]


def publish_as_both(publish: Callable[[], object]) -> None:
    """Publish a task as each of two users."""
    for name in ("ann", "bob"):
        with user_context(name):
            publish()


@OWN
def test_celery(inspector: Inspector, *, own: bool) -> None:
    """Tasks belong to their publisher; the features of `instrument_celery` for an app count, also if called later."""
    track("celery", {"reports.export": "report_export"})
    app = made_app()
    if own:
        instrument_celery(app, features={"reports.export": "own"})

    @app.task(name="reports.export", shared=False)  # type: ignore[untyped-decorator]
    def task() -> None:
        used()

    with start_worker(app, perform_ping_check=False, pool="solo", loglevel="ERROR"):
        with user_context("ann"):
            first = task.delay()
        with user_context("bob"):
            second = task.delay()
        first.get(timeout=30)
        second.get(timeout=30)
    assert sorted(events(inspector)) == expected(own=own)


@OWN
def test_dramatiq(inspector: Inspector, caplog: pytest.LogCaptureFixture, *, own: bool) -> None:
    """New brokers have the middleware first, until the application adds its own."""
    track("dramatiq", {"export": "report_export"})
    broker = StubBroker()
    if own:
        broker.add_middleware(DramatiqMiddleware(features={"export": "own"}), before=AgeLimit)
    actor = dramatiq.actor(actor_name="export", broker=broker)(used)
    with Running(broker):
        publish_as_both(actor.send)
    assert sum(isinstance(middleware, DramatiqMiddleware) for middleware in broker.middleware) == 1
    assert isinstance(broker.middleware[0], DramatiqMiddleware)
    assert "twice" not in caplog.text
    assert events(inspector) == expected(own=own)


@OWN
def test_taskiq(inspector: Inspector, *, own: bool) -> None:
    """New brokers have the middleware first, until the application adds its own."""
    track("taskiq", {"export": "report_export"})
    broker = InMemoryBroker()
    if own:
        broker = broker.with_middlewares(TaskiqMiddleware(features={"export": "own"}))
    task = broker.task(task_name="export")(used)

    async def main() -> None:
        for name in ("ann", "bob"):
            with user_context(name):
                await (await task.kiq()).wait_result(timeout=30)

    asyncio.run(main())
    assert len(broker.middlewares) == 1
    assert events(inspector) == expected(own=own)


@OWN
def test_faststream(inspector: Inspector, *, own: bool) -> None:
    """Messages belong to their publisher; a middleware that the application adds decides on trust."""
    track("faststream")
    broker = RedisBroker()
    if own:
        broker.add_middleware(FastStreamMiddleware(trust_headers=False))

    @broker.subscriber(list="used")
    async def handle(_: str) -> None:
        used()

    async def main() -> None:
        async with TestRedisBroker(broker):
            for name in ("ann", "bob"):
                with user_context(name):
                    await broker.publish(name, list="used")

    asyncio.run(main())
    assert events(inspector) == ([] if own else [("used", "ann"), ("used", "bob")])


@pytest.mark.parametrize("above", [False, True])
def test_faststream_handler(inspector: Inspector, *, above: bool) -> None:
    """A handler is tracked below `@broker.subscriber` and above it, as by a name in the settings."""
    broker, tracked = RedisBroker(middlewares=[FastStreamMiddleware()]), track_feature("handled")

    async def handle(name: str) -> str:
        return name

    subscriber = broker.subscriber(list="used")
    handler = tracked(subscriber(handle)) if above else subscriber(tracked(handle))

    async def main() -> None:
        async with TestRedisBroker(broker):
            for name in ("ann", "bob"):
                with user_context(name):
                    await broker.publish(name, list="used")
        with user_context("cid"):
            assert await handler("cid") == "cid"

    asyncio.run(main())
    assert events(inspector) == [("handled", "ann"), ("handled", "bob"), ("handled", "cid")]


@OWN
def test_rq(inspector: Inspector, redis_url: str, *, own: bool) -> None:
    """Jobs of RQ's own class and their callbacks belong to their publisher; a TrackedJob is written and run once."""
    track("rq", {f"{succeed.__module__}.succeed": "report_export"})
    connection = redis.Redis.from_url(redis_url)
    options: dict[str, Any] = {"job_class": AppJob} if own else {}
    queue = rq.Queue(connection=connection, **options)
    publish_as_both(lambda: queue.enqueue(succeed, on_success=rq.Callback(note_success)))
    rq.SimpleWorker([queue], connection=connection, **options).work(burst=True)
    found = [("succeed" if name == "report_export" and own else name, user) for name, user in expected(own=False)]
    assert events(inspector) == sorted([*found, ("callback", "ann"), ("callback", "bob")])


def test_threads(inspector: Inspector) -> None:
    """Threads belong to the user who starts them, if the program names this integration."""
    track("threads")
    for name in ("ann", "bob"):
        with user_context(name):
            thread = threading.Thread(target=used)
            thread.start()
        thread.join()
    assert events(inspector) == [("used", "ann"), ("used", "bob")]
