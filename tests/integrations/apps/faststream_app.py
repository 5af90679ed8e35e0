"""A FastStream application: nested messages, replies and batches."""

from __future__ import annotations

import asyncio

from faststream import FastStream
from faststream.redis import ListSub, RedisBroker

from tests.integrations.apps import queue_work
from ts_autotrack.integrations.faststream import TrackingMiddleware

broker = RedisBroker(queue_work.URL, middlewares=[TrackingMiddleware(properties=queue_work.PROPERTIES)])
app = FastStream(broker)


@broker.subscriber(list="work", max_workers=20)
async def work(number: int) -> None:
    """Do the work: in another handler, by a returned message, in a batch of one user, or here."""
    if number % 4 == 1:
        await broker.publish(number, list="finish")
    elif number % 4 == 2:
        await broker.publish(number, list="pass")
    elif number % 4 == 3:
        await broker.publish_batch(number, list="batch")
    else:
        await asyncio.sleep(0.001)
        queue_work.work(number)


@broker.subscriber(list="finish")
async def finish(number: int) -> None:
    """Do the work of a nested message."""
    await asyncio.to_thread(queue_work.work, number)


@broker.subscriber(list="pass")
@broker.publisher(list="finish")
async def pass_on(number: int) -> int:
    """Return the message for the next handler."""
    return number


@broker.subscriber(list=ListSub("batch", batch=True, max_records=1))
async def batch(numbers: list[int]) -> None:
    """Do the work of a batch."""
    for number in numbers:
        queue_work.work(number)


async def publish(number: int) -> None:
    """Publish the message of a number."""
    await broker.publish(number, list="work")


def connection() -> RedisBroker:
    """Return the broker, which an `async with` opens."""
    return broker
