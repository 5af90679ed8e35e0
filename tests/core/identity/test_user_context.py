"""user_context as a block and as a decorator: values, inheritance, snapshots, pickles."""

from __future__ import annotations

import asyncio
import functools
import pickle
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.identity.conftest import users
from ts_autotrack import bind_user, flush, suppress, track, track_feature, user_context

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


@pytest.mark.parametrize("name", ["account_id", "tenant_id", "org_id", "organization_id"])
def test_other_names_of_the_account(inspector: Inspector, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Other names of group_id mean the account; beside group_id another value is ignored with a hint."""
    given: Any = {name: 7}
    with user_context("u", **given):
        track("e")
    with user_context("u", group_id="7", **given):
        track("same")
    assert not caplog.text.count("another name")
    with user_context("u", group_id="g", **given):
        track("both")
    assert users(inspector) == [("e", "u", "7"), ("same", "u", "7"), ("both", "u", "g")]
    assert all(item["properties"] == {} for item in inspector.items())
    assert f"{name}= is another name of group_id=" in caplog.text


def test_impersonation(inspector: Inspector) -> None:
    """A block or binding with another user starts anew; the fields of the request stay."""
    request = {"device_type": "mobile", "location": "l", "referrer": "r", "session_id": "s", "device_id": "d"}
    with user_context("admin", group_id="staff", team="support", context={"desk": 1, **request}):
        with user_context("victim", group_id="acme"):
            track("block")
        bind_user("victim")
        track("binding")
        track("event", user_id="third")
        track_feature("decorated", user_id="service")(lambda: None)()
    flush()
    for item in inspector.items():
        assert {key: value for key, value in item["context"].items() if key in request} == request
        assert "desk" not in item["context"]
        assert "team" not in item["properties"]
    ids = [(item["user_id"], item["context"].get("group_id")) for item in inspector.items()]
    assert ids == [("victim", "acme"), ("victim", None), ("third", None), ("service", None)]


def test_a_user_named_later_inherits(inspector: Inspector) -> None:
    """A block that names the same user, or the first one, inherits account and properties."""
    with user_context(group_id="acme", plan="pro"), user_context("u"):
        track("first")
        with user_context("u", step=1):
            track("same")
    assert users(inspector) == [("first", "u", "acme"), ("same", "u", "acme")]
    assert [item["properties"] for item in inspector.items()] == [{"plan": "pro"}, {"plan": "pro", "step": 1}]
