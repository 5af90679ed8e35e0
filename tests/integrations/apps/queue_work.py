"""Parts of the applications of task queues under test: the tracked work, its note in Redis, and the publisher."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING

import redis

from tests.integrations.load import Request, requests_of_users
from ts_autotrack import bind_user, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Callable

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


def publish_all(publish: Callable[[int], object]) -> None:
    """Publish the messages that the command line asks for, of 50 users and of nobody, from 8 threads."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda request: publish_one(request, publish), requests()))


def requests() -> list[Request]:
    """Return the requests that the command line asks for."""
    return requests_of_users(int(sys.argv[1]), int(sys.argv[2]))


def publish_one(request: Request, publish: Callable[[int], object]) -> None:
    """Publish one message as the request's user."""
    with acting(request.user):
        publish(request.number)


def acting(user: str | None) -> nullcontext[None] | user_context:
    """Return a block in which a user acts; nobody for None."""
    return nullcontext() if user is None else user_context(user, group_id=f"account-{user}", plan=f"plan-{user}")
