"""Parts of the applications of task queues under test: the tracked work, its note in Redis, and the publisher."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import redis

from tests.integrations.load import Request, requests_of_users
from ts_autotrack import bind_user, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:1/0")
PROPERTIES = ("plan",)
DONE = "done"
"""Redis list of the numbers whose work is done."""

notes = redis.Redis.from_url(URL)


class FirstAttemptError(Exception):
    """Raised by the first attempt of a task that succeeds in its second."""


@track_feature("work", capture=["number"])
def _work(number: int) -> None: ...


def work(number: int) -> None:
    """Do the tracked work, and note its number."""
    _work(number)
    notes.rpush(DONE, number)


def fail_once(number: int, *, first: bool) -> None:
    """Bind a wrong user and raise in the first attempt of every fourth task."""
    if first and number % 4 == 1:
        bind_user("wrong", group_id="wrong")
        raise FirstAttemptError


def acting(user: str | None) -> nullcontext[None] | user_context:
    """Return a block in which a user acts; nobody for None."""
    return nullcontext() if user is None else user_context(user, group_id=f"account-{user}", plan=f"plan-{user}")


def publish_all(publish: Callable[[int], object], requests: list[Request]) -> None:
    """Publish messages from 8 threads."""

    def publish_one(request: Request) -> None:
        with acting(request.user):
            publish(request.number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish_one, requests))


async def publish_all_async(
    publish: Callable[[int], Awaitable[object]], broker: AbstractAsyncContextManager[object], requests: list[Request]
) -> None:
    """Publish messages from concurrent tasks."""
    places = asyncio.Semaphore(8)

    async def publish_one(request: Request) -> None:
        async with places:
            with acting(request.user):
                await publish(request.number)

    async with broker:
        await asyncio.gather(*map(publish_one, requests))


def main(app: str, count: str, first: str) -> None:
    """Publish messages of 50 users and of nobody by an application's `publish`."""
    module: Any = importlib.import_module(app)
    requests = requests_of_users(int(count), int(first))
    if inspect.iscoroutinefunction(module.publish):
        asyncio.run(publish_all_async(module.publish, module.connection(), requests))
    else:
        publish_all(module.publish, requests)


if __name__ == "__main__":
    main(*sys.argv[1:])
