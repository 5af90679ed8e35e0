"""Dramatiq: messages belong to the user who sent them."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AgeLimit, AsyncIO, Middleware, Pipelines, Retries, SkipMessage

import ts_autotrack
from tests.integrations.workers import Queue, work_through_a_restart
from ts_autotrack import bind_user, current_user, track, user_context
from ts_autotrack.integrations._messages import HEADER
from ts_autotrack.integrations.dramatiq import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


def broker_with(*middleware: Middleware) -> StubBroker:
    """Return a broker in memory, with the tracking middleware before the defaults and others after these."""
    broker = StubBroker()
    broker.add_middleware(TrackingMiddleware(features={"featured": "export"}, properties=["plan"]), before=AgeLimit)
    for other in middleware:
        broker.add_middleware(other)
    return broker


@pytest.fixture
def broker() -> StubBroker:
    """A broker in memory."""
    return broker_with()


class Running:
    """A worker of one thread, so that each message runs on the thread of the message before."""

    def __init__(self, broker: StubBroker) -> None:
        self._broker = broker
        self._worker = dramatiq.Worker(broker, worker_timeout=10, worker_threads=1)

    def __enter__(self) -> None:
        self._worker.start()

    def __exit__(self, *_: object) -> None:
        for queue in self._broker.get_declared_queues():
            self._broker.join(queue, timeout=10_000, fail_fast=False)
        self._worker.join()
        self._worker.stop()


def events(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return name, user and plan of all events, sorted."""
    assert ts_autotrack.flush()
    return sorted(
        (item["properties"].get("feature_name", item["event_name"]), item["user_id"], item["properties"].get("plan"))
        for item in inspector.items()
    )


def test_message_belongs_to_its_sender(inspector: Inspector, broker: StubBroker) -> None:
    """User, account and named properties arrive on the worker's thread; nothing is left for the next message."""

    @dramatiq.actor(broker=broker)
    def used() -> None:
        track("used")

    @dramatiq.actor(broker=broker)
    def log_in() -> None:
        bind_user("bound")

    with Running(broker):
        for name in ("ann", "bob"):
            with user_context(name, group_id="acme", plan="pro", secret="x"):
                used.send()
            log_in.send()
            used.send()
    assert events(inspector) == [("used", "ann", "pro"), ("used", "bob", "pro")]
    assert {item["context"]["group_id"] for item in inspector.items()} == {"acme"}
    assert ts_autotrack.stats().dropped == {"unattributed": 2}


def test_features_by_actor(inspector: Inspector, broker: StubBroker) -> None:
    """A message that raised nothing sends the feature of its actor, with the actor's name as action."""

    @dramatiq.actor(broker=broker, max_retries=0)
    def featured(error: bool) -> None:  # noqa: FBT001 - a message's argument
        if error:
            raise LookupError

    with Running(broker), user_context("ann"):
        featured.send(True)
        featured.send(False)
    assert events(inspector) == [("export", "ann", None)]
    assert inspector.items()[0]["properties"]["action"] == "featured"


def test_retry_keeps_the_first_user(inspector: Inspector, broker: StubBroker) -> None:
    """A user bound in a failed attempt is not the next attempt's, and nobody stays nobody."""
    attempts: list[str | None] = []

    @dramatiq.actor(broker=broker, max_retries=1, min_backoff=1, max_backoff=1)
    def fail() -> None:
        attempts.append(current_user().user_id)
        bind_user("wrong")
        raise LookupError

    with Running(broker):
        with user_context("ann"):
            fail.send()
        fail.send()
    assert sorted(attempts, key=str) == [None, None, "ann", "ann"]
    assert events(inspector) == []


def test_pipeline_goes_on_with_the_acting_user(inspector: Inspector, broker: StubBroker) -> None:
    """The next message of a pipeline has the user acting at the end of the message before; delays keep the user."""

    @dramatiq.actor(broker=broker)
    def log_in(name: str) -> None:
        if name:
            bind_user(name)

    @dramatiq.actor(broker=broker)
    def used(_: None) -> None:
        track("used")

    with Running(broker), user_context("ann"):
        dramatiq.pipeline([log_in.message(""), used.message()], broker=broker).run()
        dramatiq.pipeline([log_in.message("bob"), used.message_with_options(delay=10)], broker=broker).run()
    assert events(inspector) == [("used", "ann", None), ("used", "bob", None)]


def test_callbacks_and_nested_messages(inspector: Inspector, broker: StubBroker) -> None:
    """Messages sent in a message, and by Dramatiq after a success or failure, go on with the user."""

    @dramatiq.actor(broker=broker)
    def used(*_: object) -> None:
        track("used")

    @dramatiq.actor(broker=broker)
    def nested() -> None:
        used.send()

    @dramatiq.actor(broker=broker, max_retries=0, on_retry_exhausted="used")
    def fail() -> None:
        raise LookupError

    with Running(broker), user_context("ann"):
        nested.send_with_options(on_success=used)
        fail.send()
    assert events(inspector) == [("used", "ann", None)] * 3


def test_async_actors(inspector: Inspector) -> None:
    """Coroutines run on another thread, inside the block of their message."""
    broker = broker_with(AsyncIO())

    @dramatiq.actor(broker=broker)
    async def used() -> None:
        track("used")

    with Running(broker):
        for name in ("ann", "bob"):
            with user_context(name):
                used.send()
        used.send()
    assert events(inspector) == [("used", "ann", None), ("used", "bob", None)]


class Skipping(Middleware):
    """A middleware of the application that skips messages, or fails."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def before_process_message(self, *_: object) -> None:
        """Raise."""
        raise self._error


@pytest.mark.parametrize("error", [SkipMessage(), dramatiq.middleware.MiddlewareError(), LookupError()])
@pytest.mark.parametrize("first", [True, False])
def test_skipped_messages_leave_nothing(inspector: Inspector, error: Exception, *, first: bool) -> None:
    """A message that another middleware skips, before or after this one, leaves no user on the thread."""
    broker = StubBroker()
    broker.add_middleware(TrackingMiddleware(), before=AgeLimit)
    broker.add_middleware(Skipping(error), **({"before": TrackingMiddleware} if first else {}))
    seen = []

    class Looking(Middleware):
        def after_ack(self, *_: object) -> None:
            seen.append(current_user().user_id)

    @dramatiq.actor(broker=broker, max_retries=0)
    def used() -> None:
        track("used")

    broker.add_middleware(Looking())
    with Running(broker), user_context("ann"):
        used.send()
        used.send()
    assert set(seen) <= {None}
    assert len(events(inspector)) == (2 if type(error) is LookupError else 0)


def test_base_exceptions_leave_nothing(inspector: Inspector, broker: StubBroker) -> None:
    """An actor that raises more than an Exception ends its message like any other."""
    seen = []

    @dramatiq.actor(broker=broker, max_retries=0)
    def leave(user: str | None) -> None:
        seen.append((user, current_user().user_id))
        raise KeyboardInterrupt

    with Running(broker):
        for name in ("ann", "bob"):
            with user_context(name):
                leave.send(name)
        leave.send(None)
    assert len(seen) == 3
    assert all(sent == found for sent, found in seen)
    assert events(inspector) == []


def test_message_sent_again_gets_the_user_of_the_moment(broker: StubBroker) -> None:
    """A message that serves as a template carries no user of an earlier sending, also between processes."""

    @dramatiq.actor(broker=broker)
    def used() -> None: ...

    message = used.message()
    found: list[Any] = []
    for name in ("ann", "", "bob"):
        with user_context(name or None):
            broker.enqueue(message)
        found.append(message.options.get(HEADER))
    assert found == ['{"user_id": "ann"}', None, '{"user_id": "bob"}']
    assert type(pickle.loads(pickle.dumps(found[0]))) is str  # noqa: S301 - made here


def test_foreign_header_is_nobody(inspector: Inspector, broker: StubBroker) -> None:
    """An option of the same name with anything else in it names nobody."""

    @dramatiq.actor(broker=broker)
    def used() -> None:
        track("used")

    with Running(broker):
        values: list[Any] = [5, [], "no JSON", {"user_id": "ann"}]
        for value in values:
            broker.enqueue(used.message_with_options(ts_autotrack=value))
    assert events(inspector) == []


@pytest.fixture
def late_broker() -> Iterator[StubBroker]:
    """A broker with the middleware at the end of the list."""
    broker = StubBroker()
    broker.add_middleware(TrackingMiddleware())
    yield broker
    broker.close()


def test_late_middleware_warns(late_broker: StubBroker, caplog: pytest.LogCaptureFixture) -> None:
    """A place after Pipelines costs later messages their user; the worker says so when it starts."""
    with Running(late_broker):
        pass
    (record,) = [record for record in caplog.records if record.name == "ts_autotrack"]
    assert "TrackingMiddleware stands after Callbacks" in record.message


def test_first_middleware_does_not_warn(caplog: pytest.LogCaptureFixture) -> None:
    """The place before all others is right."""
    broker = StubBroker(middleware=[TrackingMiddleware(), Pipelines(), Retries()])
    with Running(broker):
        pass
    assert not [record for record in caplog.records if record.name == "ts_autotrack"]


def test_bad_arguments_raise() -> None:
    """Mistakes are named when the middleware is made."""
    with pytest.raises(ValueError, match="name of a actor"):
        TrackingMiddleware(features={"": "export"})
    with pytest.raises(TypeError, match="properties="):
        TrackingMiddleware(properties="plan")


@pytest.mark.slow
def test_workers_under_load(inspector: Inspector, redis_url: str) -> None:
    """Two processes of four threads, retries, nested and async tasks, pipelines, a restart: each event is right."""
    worker = "dramatiq {app} --processes 2 --threads 4 --path ."
    queue = Queue(inspector, redis_url, "dramatiq_app", worker)
    work_through_a_restart(queue)
    assert queue.differences(inspector) == []
