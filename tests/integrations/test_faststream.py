"""FastStream: messages belong to the user who published them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from faststream import BaseMiddleware, ContextRepo, StreamMessage
from faststream.redis import ListSub, RedisBroker, TestRedisBroker

import ts_autotrack
from tests.integrations.workers import Queue
from ts_autotrack import bind_user, current_user, track, user_context
from ts_autotrack.integrations._messages import HEADER
from ts_autotrack.integrations.faststream import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import Inspector


def broker_with(*, trust_headers: bool = True) -> RedisBroker:
    """Return a broker with the middleware; a test runs it in memory."""
    return RedisBroker(middlewares=[TrackingMiddleware(properties=["plan"], trust_headers=trust_headers)])


def run(broker: RedisBroker, publish: Callable[[], Awaitable[object]]) -> None:
    """Publish messages; the broker in memory runs each inside its publishing."""

    async def main() -> None:
        async with TestRedisBroker(broker):
            await publish()

    asyncio.run(main())


def events(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return name, user and plan of all events."""
    assert ts_autotrack.flush()
    return [(item["event_name"], item["user_id"], item["properties"].get("plan")) for item in inspector.items()]


def test_message_belongs_to_its_publisher(inspector: Inspector) -> None:
    """User, account and named properties arrive; nothing is left after the message."""
    broker = broker_with()

    @broker.subscriber(list="used")
    async def used(name: str) -> None:
        track("used")
        await asyncio.to_thread(track, "in_thread")
        bind_user("bound" if name else "later")

    async def publish() -> None:
        for name in ("ann", "bob"):
            with user_context(name, group_id="acme", plan="pro", secret="x"):
                await broker.publish(name, list="used", headers={"own": "1"})
                assert current_user().user_id == name
            assert current_user().user_id is None
        await broker.publish("", list="used")

    run(broker, publish)
    users = [("ann", "pro"), ("bob", "pro"), ("later", None)]
    assert events(inspector) == [(event, *user) for user in users for event in ("used", "in_thread")]
    assert {item["context"].get("group_id") for item in inspector.items()} == {"acme", None}


def test_published_and_returned_messages_go_on(inspector: Inspector) -> None:
    """A handler's messages, and the message that it returns, have the user acting at that moment."""
    broker = broker_with()

    @broker.subscriber(list="first")
    @broker.publisher(list="used")
    async def first(name: str) -> str:
        await broker.publish(name, list="used")
        if name:
            bind_user(name)
        return name

    @broker.subscriber(list="used")
    async def used() -> None:
        track("used")

    async def publish() -> None:
        with user_context("ann"):
            await broker.publish("bob", list="first")
            await broker.publish("", list="first")
        await broker.publish("cid", list="first")

    run(broker, publish)
    assert [user for _, user, _ in events(inspector)] == ["ann", "bob", "ann", "ann", "cid"]


def test_batches(inspector: Inspector) -> None:
    """A published batch has one user. A consumed batch of several users has none."""
    broker = broker_with()

    @broker.subscriber(list=ListSub("batch", batch=True))
    async def used(numbers: list[int]) -> None:
        track("used", {"numbers": numbers})

    async def publish() -> None:
        with user_context("ann"):
            await broker.publish_batch(1, 2, list="batch")

    run(broker, publish)
    assert events(inspector) == [("used", "ann", None)]


@pytest.mark.parametrize(("second", "user"), [("ann", "ann"), ("bob", None), ("", None)])
def test_consumed_batches(second: str, user: str | None) -> None:
    """A batch of one user's messages has this user; a batch of several users, or of nobody's messages too, has none."""

    def headers(name: str) -> dict[str, Any]:
        return {HEADER: f'{{"user_id": "{name}"}}'} if name else {}

    batch: StreamMessage[Any] = StreamMessage(
        [], "", headers=headers("ann"), batch_headers=[headers("ann"), headers(second)]
    )
    middleware = TrackingMiddleware()([], context=ContextRepo())

    async def acting(_: object) -> str | None:
        return current_user().user_id

    assert asyncio.run(middleware.consume_scope(acting, batch)) == user


def test_errors_leave_nothing(inspector: Inspector) -> None:
    """A handler that raises, or is cancelled, ends its block, also with a middleware of the application."""

    class Own(BaseMiddleware[Any, Any]):
        async def consume_scope(self, call_next: Any, msg: Any) -> Any:
            track("own")
            return await call_next(msg)

    broker = RedisBroker(middlewares=[TrackingMiddleware(), Own])

    @broker.subscriber(list="fail")
    async def fail(number: int) -> None:
        bind_user("wrong")
        raise (LookupError, asyncio.CancelledError)[number]

    async def publish() -> None:
        for number in (0, 1):
            with user_context("ann"), pytest.raises((LookupError, asyncio.CancelledError)):
                await broker.publish(number, list="fail")
            track("after")

    run(broker, publish)
    assert [event[:2] for event in events(inspector)] == [("own", "ann")] * 2


@pytest.mark.parametrize("value", ["no JSON", "[]", '{"user_id": 5}'])
def test_unreadable_headers_are_nobody(inspector: Inspector, value: str) -> None:
    """A header that another producer wrote with anything else in it names nobody."""
    broker = broker_with()
    foreign = RedisBroker()

    @broker.subscriber(list="used")
    async def used() -> None:
        track("used")

    async def publish() -> None:
        await foreign.publish("", list="used", headers={HEADER: value})

    async def main() -> None:
        async with TestRedisBroker(broker, foreign):
            await publish()

    asyncio.run(main())
    assert events(inspector) == []


def test_untrusted_headers(inspector: Inspector) -> None:
    """With `trust_headers=False` a message starts with nobody, and the handler names the user."""
    broker = broker_with(trust_headers=False)

    @broker.subscriber(list="used")
    async def used(name: str) -> None:
        track("used")
        if name:
            bind_user(name)

    async def publish() -> None:
        with user_context("ann"):
            await broker.publish("", list="used")
            await broker.publish("bob", list="used")

    run(broker, publish)
    assert [user for _, user, _ in events(inspector)] == ["bob"]


def test_header_of_the_application_gives_way(inspector: Inspector) -> None:
    """Headers that an application copies from elsewhere name no user."""
    broker = broker_with()

    @broker.subscriber(list="used")
    async def used() -> None:
        track("used")

    headers = {HEADER: '{"user_id": "wrong"}'}

    async def publish() -> None:
        await broker.publish("", list="used", headers=headers)
        with user_context("ann"):
            await broker.publish("", list="used", headers=headers)

    run(broker, publish)
    assert [user for _, user, _ in events(inspector)] == ["ann"]
    assert headers == {HEADER: '{"user_id": "wrong"}'}


def test_bad_arguments_raise() -> None:
    """Mistakes are named when the middleware is made."""
    with pytest.raises(TypeError, match="properties="):
        TrackingMiddleware(properties="plan")


@pytest.mark.slow
def test_workers_under_load(inspector: Inspector, redis_url: str) -> None:
    """Two processes, nested and returned messages, batches, SIGTERM right after the work: each event is right.

    There is no restart in the middle: at SIGTERM FastStream loses messages that it has taken from a Redis list.
    """
    queue = Queue(inspector, redis_url, "faststream_app", "faststream run {app}:app --workers 2")
    with queue.working():
        queue.publish(200)
        queue.wait_for(200)
    assert queue.differences(inspector) == []
