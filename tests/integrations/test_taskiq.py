"""Taskiq: tasks belong to the user who sent them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from taskiq import InMemoryBroker, SimpleRetryMiddleware, TaskiqMiddleware

import ts_autotrack
from tests.integrations.workers import Queue, work_through_a_restart
from ts_autotrack import bind_user, current_user, track, user_context
from ts_autotrack.integrations._messages import HEADER
from ts_autotrack.integrations.taskiq import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from taskiq import TaskiqMessage, TaskiqResult

    from tests.conftest import Inspector


class Noting(TaskiqMiddleware):
    """A middleware of the application, which sees the acting user."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str | None] = []

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Note the user, and go on with a copy of the message."""
        self.seen.append(current_user().user_id)
        return message.model_copy(update={"labels": dict(message.labels)})

    async def post_execute(self, message: TaskiqMessage, _: TaskiqResult[Any]) -> None:
        """Note the user."""
        assert HEADER in message.labels
        self.seen.append(current_user().user_id)


class Application:
    """A broker in memory with tasks of several kinds."""

    def __init__(self, *, inplace: bool = False) -> None:
        self.noting = Noting()
        self.broker = InMemoryBroker(await_inplace=inplace, sync_tasks_pool_size=1).with_middlewares(
            TrackingMiddleware(features={"featured": "export"}, properties=["plan"]),
            self.noting,
            SimpleRetryMiddleware(default_retry_count=2),
        )
        self.attempts: list[str | None] = []
        self.used = self.broker.task(task_name="used")(lambda: track("used"))  # in a thread
        self.log_in = self.broker.task(task_name="log_in")(lambda: bind_user("bound"))

        @self.broker.task(task_name="used_async")
        async def used_async() -> None:
            await asyncio.sleep(0)
            track("used_async")

        @self.broker.task(task_name="featured")
        async def featured(error: bool) -> None:  # noqa: FBT001 - a message's argument
            if error:
                raise LookupError

        @self.broker.task(task_name="fail", retry_on_error=True)
        async def fail() -> None:
            self.attempts.append(current_user().user_id)
            bind_user("wrong")
            raise LookupError

        self.used_async, self.featured, self.fail = used_async, featured, fail

    def run(self, send: Callable[[Application], Awaitable[None]]) -> None:
        """Send tasks and wait for their end."""

        async def main() -> None:
            await self.broker.startup()
            await send(self)
            while self.broker._running_tasks:  # a retry is a task of its own
                await self.broker.wait_all()
                await asyncio.sleep(0)  # lets the broker forget them
            await self.broker.shutdown()

        asyncio.run(main())


def events(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return name, user and plan of all events, sorted."""
    assert ts_autotrack.flush()
    return sorted(
        (item["properties"].get("feature_name", item["event_name"]), item["user_id"], item["properties"].get("plan"))
        for item in inspector.items()
    )


@pytest.mark.parametrize("inplace", [True, False])
def test_task_belongs_to_its_sender(inspector: Inspector, *, inplace: bool) -> None:
    """User, account and named properties arrive, in threads too; nothing is left for the next task on the thread."""

    async def send(app: Application) -> None:
        for name in ("ann", "bob"):
            with user_context(name, group_id="acme", plan="pro", secret="x"):
                await app.used.kiq()
                await app.used_async.kicker().with_labels(own="label").kiq()
            await app.log_in.kiq()
            await app.used.kiq()
            assert current_user().user_id is None

    app = Application(inplace=inplace)
    app.run(send)
    assert events(inspector) == [(event, name, "pro") for event in ("used", "used_async") for name in ("ann", "bob")]
    assert {item["context"]["group_id"] for item in inspector.items()} == {"acme"}
    assert ts_autotrack.stats().dropped == {"unattributed": 2}
    assert sorted(map(str, app.noting.seen)) == [*["None"] * 6, *["ann"] * 4, *["bob"] * 4, *["bound"] * 2]


def test_features_by_task(inspector: Inspector) -> None:
    """A task that raised nothing sends its feature, with the task's name as action."""

    async def send(app: Application) -> None:
        with user_context("ann"):
            await app.featured.kiq(error=True)
            await app.featured.kiq(error=False)

    Application().run(send)
    assert events(inspector) == [("export", "ann", None)]
    assert inspector.items()[0]["properties"]["action"] == "featured"


def test_retry_keeps_the_first_user(inspector: Inspector) -> None:
    """A user bound in a failed attempt is not the next attempt's, and nobody stays nobody."""

    async def send(app: Application) -> None:
        with user_context("ann"):
            await app.fail.kiq()
        await app.fail.kiq()

    app = Application()
    app.run(send)
    assert sorted(app.attempts, key=str) == [None, None, "ann", "ann"]
    assert events(inspector) == []


def test_cancelled_task_and_base_exceptions_end(inspector: Inspector) -> None:
    """A task that is cancelled, times out or raises a BaseException ends its block."""
    app = Application(inplace=True)

    async def cancel() -> None:
        bind_user("wrong")
        raise asyncio.CancelledError

    async def wait() -> None:
        bind_user("wrong")
        await asyncio.Event().wait()

    cancelled = app.broker.task(task_name="cancelled")(cancel)
    waiting = app.broker.task(task_name="waiting", timeout=0.01)(wait)

    async def send(app: Application) -> None:
        await cancelled.kiq()
        await waiting.kiq()
        track("after")
        with user_context("ann"):
            await app.used.kiq()

    app.run(send)
    assert events(inspector) == [("used", "ann", None)]


def test_foreign_label_is_nobody(inspector: Inspector) -> None:
    """A label of the same name with anything else in it names nobody."""

    async def send(app: Application) -> None:
        values: list[Any] = [5, "no JSON", "[]"]
        for value in values:
            await app.used.kicker().with_labels(**{HEADER: value}).kiq()

    Application().run(send)
    assert events(inspector) == []


def test_bad_arguments_raise() -> None:
    """Mistakes are named when the middleware is made."""
    with pytest.raises(ValueError, match="name of a task"):
        TrackingMiddleware(features={"": "export"})
    with pytest.raises(TypeError, match="properties="):
        TrackingMiddleware(properties="plan")


@pytest.mark.slow
def test_workers_under_load(inspector: Inspector, redis_url: str) -> None:
    """Two processes, retries, nested tasks, tasks in threads, a restart: each event is right."""
    queue = Queue(inspector, redis_url, "taskiq_app", "taskiq worker {app}:broker --workers 2")
    work_through_a_restart(queue, 120)
    assert queue.differences(inspector) == []
