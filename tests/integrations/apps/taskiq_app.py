"""A Taskiq application: async tasks, functions in threads, nested and retried tasks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from taskiq import Context, SimpleRetryMiddleware, TaskiqDepends
from taskiq_redis import RedisStreamBroker

from tests.integrations.apps import queue_work
from ts_autotrack.integrations.taskiq import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

broker = RedisStreamBroker(queue_work.URL).with_middlewares(
    TrackingMiddleware(properties=queue_work.PROPERTIES), SimpleRetryMiddleware(default_retry_count=3)
)


@broker.task(retry_on_error=True)
async def work(number: int, context: Context = TaskiqDepends()) -> None:  # noqa: B008 - Taskiq's form
    """Do the work: in the second attempt, in a nested task, in a thread, or here."""
    queue_work.fail_once(number, first="_retries" not in context.message.labels)
    if number % 4 == 2:
        await work_in_thread.kiq(number)
    elif number % 4 == 3:
        await asyncio.to_thread(queue_work.work, number)
    else:
        await asyncio.sleep(0.001)
        queue_work.work(number)


@broker.task
def work_in_thread(number: int) -> None:
    """Do the work in a thread of the worker."""
    queue_work.work(number)


async def publish(number: int) -> None:
    """Send the task of a number."""
    await work.kiq(number)


@asynccontextmanager
async def connection() -> AsyncIterator[None]:
    """Open the broker."""
    await broker.startup()
    yield
    await broker.shutdown()
