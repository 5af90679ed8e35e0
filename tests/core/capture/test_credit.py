"""The user of an event is decided where the call began, and by the call itself: wherever the call ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel

from tests.core.identity.conftest import users
from ts_autotrack import bind_user, clear_user, flush, request_scope, stats, track_feature, user_context
from ts_autotrack._core.capture import binding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.conftest import Inspector


def rows(*, user: str | None = None) -> Iterator[int]:
    """Yield two rows; name a user before the first one."""
    if user:
        bind_user(user, group_id=f"{user}'s")
    yield 1
    yield 2


def rows_of_a_block(*, user: str | None = None) -> Iterator[int]:
    """Yield two rows inside a tracked block."""
    with track_feature("rows"):
        if user:
            bind_user(user, group_id=f"{user}'s")
        yield 1
        yield 2


def rows_of_a_function(*, user: str | None = None) -> Iterator[int]:
    """Return a generator."""
    return rows(user=user)


def tracked(function: Callable[..., Any]) -> Callable[..., Iterator[int]]:
    """Return the function tracked, but for the function that tracks a block of its own."""
    made: Callable[..., Iterator[int]] = function if function is rows_of_a_block else track_feature("rows")(function)
    return made


KINDS = pytest.mark.parametrize("kind", [rows, rows_of_a_block, rows_of_a_function])
ENDS = pytest.mark.parametrize("end", ["close", "read", "collect"])


def finish(generator: Any, end: str) -> None:
    """End a generator in one of three ways."""
    if end == "close":
        generator.close()
    elif end == "read":
        assert list(generator) == [2]


@KINDS
@ENDS
def test_generators_ended_in_anothers_context(inspector: Inspector, kind: Callable[..., Any], end: str) -> None:
    """A generator belongs to the user at its beginning; begun by nobody it belongs to nobody."""
    with user_context("alice", group_id="acme"):
        generator = tracked(kind)()
        next(generator)
    anonymous = tracked(kind)()
    next(anonymous)
    with user_context("bob", group_id="globex"):
        finish(generator, end)
        finish(anonymous, end)
        del generator, anonymous
        gc.collect()
    assert users(inspector) == [("feature_used", "alice", "acme")]
    assert stats().dropped == {"unattributed": 1}


@KINDS
@ENDS
def test_generators_that_name_the_user(inspector: Inspector, kind: Callable[..., Any], end: str) -> None:
    """A user bound by the generator itself is the user of its event, wherever it ends."""

    def begin() -> Any:
        with user_context("around"):
            generator = tracked(kind)(user="alice")
            next(generator)
            return generator

    generator = begin()
    with user_context("bob", group_id="globex"):
        finish(generator, end)
        del generator
        gc.collect()
    assert users(inspector) == [("feature_used", "alice", "alice's")]


@KINDS
def test_bindings_of_others(inspector: Inspector, kind: Callable[..., Any]) -> None:
    """A binding made by the consumer between two steps does not concern the generator."""
    generator = tracked(kind)()
    next(generator)
    bind_user("bob", group_id="globex")
    assert list(generator) == [2]
    clear_user()
    assert users(inspector) == []


def test_a_binding_inside_a_block_ends_with_the_block(inspector: Inspector) -> None:
    """A generator that binds a user inside a block of its own, and leaves the block, is the user's around it again."""

    @track_feature("rows")
    def generator() -> Iterator[int]:
        with user_context("inside"):
            bind_user("bound inside")
            yield 1
        yield 2

    with user_context("alice"):
        assert list(generator()) == [1, 2]
    assert users(inspector) == [("feature_used", "alice", None)]


def test_blocks_inside_each_other(inspector: Inspector) -> None:
    """Each block of a generator, and the generator itself, belongs to the user bound since its own beginning."""

    @track_feature("generator")
    def generator() -> Iterator[int]:
        bind_user("first")
        with track_feature("outer"):
            with user_context("second"), track_feature("inner"):
                yield 1
            bind_user("third")
            with track_feature("last"):
                yield 2

    started = generator()
    next(started)
    with user_context("bob"):
        assert list(started) == [2]
    events = [(item["properties"]["feature_name"], item["user_id"]) for item in _arrived(inspector)]
    assert events == [("inner", "second"), ("last", "third"), ("outer", "third"), ("generator", "third")]
    assert not binding.bindings
    assert not binding.open_blocks


def _arrived(inspector: Inspector) -> list[dict[str, Any]]:
    assert flush(10)
    return inspector.items()


def test_async_generators(inspector: Inspector) -> None:
    """An async generator that is closed or read elsewhere belongs to its beginning, or to the user that it names."""

    @track_feature("stream")
    async def stream(user: str | None = None) -> AsyncIterator[int]:
        if user:
            bind_user(user)
        yield 1
        yield 2

    async def begin(user: str | None, bound: str | None) -> Any:
        with user_context(user) if user else contextlib.nullcontext():
            started = stream(bound)
            await anext(started)
            return started

    async def main() -> None:
        started = [
            await asyncio.create_task(begin(user, bound))
            for user, bound in (("alice", None), (None, None), (None, "carol"))
        ]
        with user_context("bob"):
            for generator in started:
                await generator.aclose()

    asyncio.run(main())
    assert users(inspector) == [("feature_used", "alice", None), ("feature_used", "carol", None)]
    assert stats().dropped == {"unattributed": 1}


def test_baggage_at_the_beginning(inspector: Inspector) -> None:
    """User and account from baggage are those at the beginning, also of a block that ends elsewhere."""

    def attach(user: str, group: str) -> Any:
        context = baggage.set_baggage("user.id", user, otel.Context())
        return otel.attach(baggage.set_baggage("account.id", group, context))

    token = attach("alice", "acme")
    generators = [tracked(kind)() for kind in (rows, rows_of_a_block, rows_of_a_function)]
    for generator in generators:
        next(generator)
    otel.detach(token)
    token = attach("bob", "globex")
    for generator in generators:
        assert list(generator) == [2]
    otel.detach(token)
    assert users(inspector) == [("feature_used", "alice", "acme")] * 3


def test_blocks_in_the_same_run(inspector: Inspector) -> None:
    """A block in a function belongs to the user acting at its end, also if a context manager opens it."""

    @contextlib.contextmanager
    def helper() -> Iterator[None]:
        with track_feature("helper"):
            yield

    def login(block: Any) -> None:
        with request_scope(), block:
            bind_user("u")

    def login_outside(block: Any) -> None:
        with user_context(plan="pro"), block:
            bind_user("u")

    for function in (login, login_outside):
        function(track_feature("direct"))
        function(helper())
        with contextlib.ExitStack() as stack:
            function(stack)
            stack.enter_context(track_feature("nobody's"))
    assert [user for _, user, _ in users(inspector)] == ["u"] * 4
    assert stats().dropped == {"unattributed": 2}


def test_generators_of_a_request(inspector: Inspector) -> None:
    """A generator begun before the login, and read after the request, belongs to who logged in."""
    with request_scope():
        generator = tracked(rows)()
        next(generator)
        bind_user("u")
    with request_scope():
        bind_user("next")
        assert list(generator) == [2]
    assert users(inspector) == [("feature_used", "u", None)]
