"""user_context as a block and as a decorator: values, inheritance, snapshots, pickles."""

from __future__ import annotations

import asyncio
import functools
import pickle
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from tests.core.identity.conftest import users
from ts_autotrack import flush, suppress, track, user_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tests.conftest import Inspector


def test_known_keys_become_context_and_the_rest_properties(inspector: Inspector) -> None:
    """The contract's context keys go to `context`, all other values to `properties`."""
    with user_context(
        "user_123", group_id="account_456", device_type="mobile", location="New York, USA", referrer="email",
        session_id="s", device_id="d", context={"org_id": "o"}, user_email="JaneDoe@example.com",
    ):  # fmt: skip
        track("e", {"extra": 1})
    assert flush(10)
    item = inspector.items()[0]
    del item["context"]["event_id"]
    assert item["context"] == {
        "source": "product", "group_id": "account_456", "device_type": "mobile", "location": "New York, USA",
        "referrer": "email", "session_id": "s", "device_id": "d", "org_id": "o",
    }  # fmt: skip
    assert item["properties"] == {"user_email": "JaneDoe@example.com", "extra": 1}


def test_blocks_nest_and_inherit(inspector: Inspector) -> None:
    """Inner keys win, other keys are inherited, and leaving restores. Another user starts anew."""
    with user_context("a", group_id="g", plan="pro", location="x"):
        with user_context("b", plan="free"):
            track("inner")
        with user_context(group_id="h"):
            track("group_only")
        track("outer")
    assert users(inspector) == [("inner", "b", None), ("group_only", "a", "h"), ("outer", "a", "g")]
    assert [item["properties"] for item in inspector.items()] == [{"plan": "free"}, {"plan": "pro"}, {"plan": "pro"}]
    assert all(item["context"]["location"] == "x" for item in inspector.items())


def test_as_decorator_on_every_kind_of_function(inspector: Inspector) -> None:
    """Each call, and each step of a generator, runs inside; the consumer's code between two steps does not."""
    acting = user_context("inside", group_id="g")

    @acting
    def function() -> None:
        track("function")

    @acting
    async def coroutine() -> None:
        await asyncio.sleep(0)
        track("coroutine")

    @acting
    def generator() -> Generator[int, int, str]:
        try:
            got = yield 1
            track("generator")
            yield got
        except KeyError:
            yield -1
        return "end"

    @acting
    async def stream() -> AsyncGenerator[int, int]:
        try:
            got = yield 1
            track("stream")
            yield got
        except KeyError:
            yield -1
        finally:
            track("closed")

    async def consume() -> None:
        running = stream()
        await anext(running)
        track("between")
        assert [await running.asend(5), await running.athrow(KeyError())] == [5, -1]
        assert [item async for item in running] == []
        async with aclosing(stream()) as early:
            await anext(early)

    with user_context("outside", group_id="g"):
        function()
        asyncio.run(coroutine())
        running = generator()
        next(running)
        track("between")
        assert [running.send(4), running.throw(KeyError())] == [4, -1]
        with pytest.raises(StopIteration) as stop:
            next(running)
        assert stop.value.value == "end"
        closed = generator()
        next(closed)
        closed.close()
        asyncio.run(consume())
        acting(functools.partial(function))()
    assert [(name, user) for name, user, _ in users(inspector)] == [
        ("function", "inside"),
        ("coroutine", "inside"),
        ("between", "outside"),
        ("generator", "inside"),
        ("between", "outside"),
        ("stream", "inside"),
        ("closed", "inside"),
        ("closed", "inside"),
        ("function", "inside"),
    ]


def test_user_context_values_are_a_snapshot(inspector: Inspector) -> None:
    """A list given to `user_context` is copied when the block begins."""
    roles = ["admin"]
    with user_context("u", group_id="g", roles=roles):
        roles.append("late")
        track("e")
    assert flush(10)
    assert inspector.items()[0]["properties"] == {"roles": ["admin"]}


def test_pickled_context_works(inspector: Inspector) -> None:
    """A `user_context` can be sent to another process."""
    with pickle.loads(pickle.dumps(user_context("u", group_id="g", plan="pro", location="x"))):  # noqa: S301
        track("e")
    with pickle.loads(pickle.dumps(suppress())):  # noqa: S301
        track("e", user_id="u")
    assert users(inspector) == [("e", "u", "g")]
