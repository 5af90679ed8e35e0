"""A Dramatiq application: plain, async, nested and retried tasks, and pipelines."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, AsyncIO, CurrentMessage

from tests.integrations.apps import queue_work
from ts_autotrack.integrations.dramatiq import TrackingMiddleware

broker = RedisBroker(url=queue_work.URL)
broker.add_middleware(AsyncIO())
broker.add_middleware(CurrentMessage())
broker.add_middleware(TrackingMiddleware(properties=queue_work.PROPERTIES), before=AgeLimit)
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=3, min_backoff=10, max_backoff=20)
def work(number: int) -> None:
    """Do the work: in the second attempt, in a nested task, at the end of a pipeline, or here."""
    message = CurrentMessage.get_current_message()
    queue_work.fail_once(number, first=message is not None and "retries" not in message.options)
    if number % 4 == 2:
        work_async.send(number)
    elif number % 4 == 3:
        (number_of.message(number) | work_async.message()).run()
    else:
        queue_work.work(number)


@dramatiq.actor
async def work_async(number: int) -> None:
    """Do the work on the event loop."""
    queue_work.work(number)


@dramatiq.actor
def number_of(number: int) -> int:
    """Return the number for the next task of the pipeline."""
    return number


publish = work.send
