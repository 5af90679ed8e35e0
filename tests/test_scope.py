"""Who is acting: nesting, isolation, and what no id at all leads to."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import pickle
import threading
import weakref
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from opentelemetry import baggage, context

from ts_autotrack import bind_user, clear_user, configure, flush, stats, suppress, track, track_feature, user_context
from ts_autotrack._core.identity.scope import MAX_BOUND, Scope, current

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from tests.conftest import Inspector


def who(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return event name, user and group of what arrived."""
    assert flush(10)
    return [(i["event_name"], i["user_id"], i["context"].get("group_id")) for i in inspector.items()]


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
    """Inner keys win, the rest is inherited, and leaving restores."""
    with user_context("a", group_id="g", plan="pro", location="x"):
        with user_context("b", plan="free"):
            track("inner")
        with user_context(group_id="h"):
            track("group_only")
        track("outer")
    assert who(inspector) == [("inner", "b", "g"), ("group_only", "a", "h"), ("outer", "a", "g")]
    assert [item["properties"] for item in inspector.items()] == [{"plan": "free"}, {"plan": "pro"}, {"plan": "pro"}]
    assert all(item["context"]["location"] == "x" for item in inspector.items())


def test_ids_become_text(inspector: Inspector) -> None:
    """Database ids of any type are sent as text; a given id that is none means nobody, not the user around it."""

    class Hostile:
        def __str__(self) -> str:
            raise LookupError

    class Id(str, enum.Enum):
        SERVICE = "svc"

    uuid = UUID(int=7)
    with user_context(42, group_id=uuid):
        track("ints")
        for nobody in ("  ", "", Hostile(), object(), True, b"x"):
            with user_context(nobody):
                track("nobody")
            track("nobody", user_id=nobody)
        with user_context(group_id=" "):
            track("no group", user_id=Id.SERVICE)
    expected = ("42", str(uuid))
    assert who(inspector) == [("ints", *expected), ("no group", "svc", None)]
    assert stats().dropped == {"unattributed": 12}


def test_tasks_and_threads_are_isolated(inspector: Inspector) -> None:
    """Concurrent tasks see their own user across awaits; a child task inherits; a thread starts with none."""

    async def request(user: str) -> None:
        async with user_context(user, group_id="g"):
            await asyncio.sleep(0)
            track("request")
            await asyncio.create_task(child())

    async def child() -> None:
        track("child")

    async def main() -> None:
        await asyncio.gather(*(request(f"u{n}") for n in range(20)))

    asyncio.run(main())
    with user_context("main"):
        thread = threading.Thread(target=track, args=("thread",))
        thread.start()
        thread.join()
    arrived = who(inspector)
    assert sorted(user for name, user, _ in arrived if name == "request") == sorted(f"u{n}" for n in range(20))
    assert sorted(user for name, user, _ in arrived if name == "child") == sorted(f"u{n}" for n in range(20))
    assert len(arrived) == 40
    assert stats().dropped == {"unattributed": 1}


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
    assert [(name, user) for name, user, _ in who(inspector)] == [
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


def test_block_left_in_another_context_ends_quietly(inspector: Inspector) -> None:
    """An async generator closed by another task raises nothing, and the task that began it does not keep its user."""

    async def rows() -> AsyncGenerator[int, None]:
        with user_context("generator", group_id="g"):
            yield 1

    async def main() -> None:
        with user_context("task", group_id="g"):
            running = rows()
            await anext(running)
            await asyncio.create_task(running.aclose())
            track("after")
            with user_context(location="x"):
                track("nested")

    asyncio.run(main())
    assert who(inspector) == [("after", "task", "g"), ("nested", "task", "g")]


def test_a_binding_ends_with_its_block_in_another_context(inspector: Inspector) -> None:
    """`bind_user` inside a block that another task closes leaves no user in the task that began the block."""

    @track_feature("after")
    def after() -> None:
        """Do nothing."""

    async def rows() -> AsyncGenerator[int, None]:
        with user_context("generator", group_id="g"):
            bind_user("bound", group_id="g")
            yield 1

    async def main() -> None:
        with user_context("task", group_id="g"):
            running = rows()
            await anext(running)
            after()
            await asyncio.create_task(running.aclose())
            after()

    asyncio.run(main())
    assert who(inspector) == [("feature_used", "bound", "g"), ("feature_used", "task", "g")]


def test_many_bindings_inside_one_block(inspector: Inspector) -> None:
    """Each task inside a block around a whole server keeps its own binding."""
    users = [f"u{n}" for n in range(MAX_BOUND + 10)]

    async def request(user: str) -> None:
        bind_user(user, group_id="g")
        await asyncio.sleep(0)
        track("request")

    async def main() -> None:
        async with user_context(location="x"):
            await asyncio.gather(*map(request, users))

    asyncio.run(main())
    assert who(inspector) == [("request", user, "g") for user in users]


def test_a_scope_keeps_neither_its_block_nor_its_context_alive() -> None:
    """A waiting event holds its scope; the values of the block and of other context variables are freed without it."""

    class Big:
        """A large value."""

    variable: contextvars.ContextVar[Big | None] = contextvars.ContextVar("variable")
    scopes: list[Scope | None] = []

    def work() -> list[weakref.ref[Big]]:
        given, other = Big(), Big()
        variable.set(other)
        with user_context("u", group_id="g", plan=given):
            bind_user("v")
            scopes.extend((current(), current().unbound))
        variable.set(None)
        return [weakref.ref(given), weakref.ref(other)]

    values = contextvars.copy_context().run(work)
    assert [value() for value in values] == [None, None]
    assert [scope.user_id for scope in scopes if scope is not None] == ["v", "u"]


def test_blocks_left_out_of_order(inspector: Inspector) -> None:
    """A block that ends before one entered after it leaves no trace once that one has ended."""
    first, second = user_context("first", group_id="g"), user_context("second", group_id="g")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    track("second")
    second.__exit__(None, None, None)
    second.__exit__(None, None, None)
    track("nobody")
    assert who(inspector) == [("second", "second", "g")]


def test_block_left_in_a_copy_of_its_context_and_then_in_its_own(inspector: Inspector) -> None:
    """Leaving twice, once in a copied context, restores both."""
    block = user_context("u", group_id="g")
    block.__enter__()
    contextvars.copy_context().run(block.__exit__, None, None, None)
    block.__exit__(None, None, None)
    track("nobody")
    assert who(inspector) == []


def test_bind_and_clear(inspector: Inspector) -> None:
    """A binding holds for the rest of the context, ends with the enclosing block, and can be cleared."""

    @track_feature("login")
    def login() -> None:
        bind_user("bound", group_id="g", plan="pro")

    with user_context("block", group_id="h"):
        login()
        track("still")
        clear_user()
        track("cleared")
        bind_user("again")
        track("again")
    track("nobody")
    bind_user("before", group_id="b", plan="old")
    bind_user(location="x")
    track("before")
    bind_user("top", group_id="t")
    track("top")
    with suppress():
        clear_user()
        track("suppressed", user_id="u")
    clear_user()
    track("nobody")
    assert who(inspector) == [
        ("feature_used", "bound", "g"),
        ("still", "bound", "g"),
        ("again", "again", None),
        ("before", "before", "b"),
        ("top", "top", "t"),
    ]
    assert [item["properties"] for item in inspector.items()][-2:] == [{"plan": "old"}, {}]
    assert "location" not in inspector.items()[-1]["context"]
    assert stats().dropped == {"unattributed": 3, "suppressed": 1}


def test_a_destroyed_task_ends_its_own_scope_only(inspector: Inspector) -> None:
    """One decorator serves many tasks: collecting a pending one takes nobody else's identity, or silence."""

    @user_context("robot", group_id="r")
    async def work(gate: Any) -> None:
        await gate
        track("robot")

    @suppress()
    async def silent(gate: Any) -> None:
        await gate
        track("silent")

    async def main() -> None:
        with user_context("alice", group_id="a"):
            gate = asyncio.Event()
            loop = asyncio.get_running_loop()
            for function in (work, silent):
                running = asyncio.create_task(function(gate.wait()))
                await asyncio.sleep(0)
                doomed = function(loop.create_future())
                doomed.send(None)
                contextvars.Context().run(doomed.close)
                gate.set()
                await running

    asyncio.run(main())
    assert who(inspector) == [("robot", "robot", "r")]
    assert stats().dropped == {"suppressed": 1}


def test_block_may_be_shared_by_concurrent_tasks(inspector: Inspector) -> None:
    """One `user_context` object serves many tasks at once, and nested in itself."""
    shared = user_context("shared", group_id="g")

    async def work() -> None:
        with shared:
            await asyncio.sleep(0)
            with shared:
                await asyncio.sleep(0)
            track("in")
        track("out")

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(5)))

    asyncio.run(main())
    assert who(inspector) == [("in", "shared", "g")] * 5
    assert stats().dropped == {"unattributed": 5}


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
    assert who(inspector) == [("e", "u", "g")]


@pytest.fixture
def carried() -> Iterator[None]:
    """Baggage as an inbound request would carry it."""
    token = context.attach(baggage.set_baggage("user.id", "from_baggage"))
    inner = context.attach(baggage.set_baggage("tenant.id", "tenant"))
    yield
    context.detach(inner)
    context.detach(token)


@pytest.mark.usefixtures("carried")
def test_baggage_is_the_fallback(inspector: Inspector) -> None:
    """Baggage gives the ids that nothing else gives, and the event says so."""
    track("baggage")
    track("baggage")
    with user_context("u"):
        track("user")
    with user_context("u", group_id="g"):
        track("both")
    track("own", user_id="own", group_id="own")
    assert who(inspector) == [
        ("baggage", "from_baggage", "tenant"),
        ("baggage", "from_baggage", "tenant"),
        ("user", "u", "tenant"),
        ("both", "u", "g"),
        ("own", "own", "own"),
    ]
    sources = [item["context"].get("identity_source") for item in inspector.items()]
    assert sources == ["baggage", "baggage", "baggage", None, None]


@pytest.mark.usefixtures("carried")
def test_baggage_can_be_turned_off(inspector: Inspector) -> None:
    """With BAGGAGE off an outside caller cannot say who is acting."""
    configure(baggage=False)
    track("baggage")
    assert who(inspector) == []


@pytest.mark.parametrize("value", ["x" * 257, "  ", 7])
def test_strange_baggage_is_no_identity(inspector: Inspector, value: Any) -> None:
    """An id in baggage is a text of at most 256 characters; the next key in the list is tried."""
    token = context.attach(baggage.set_baggage("user.id", value))
    track("strange")
    inner = context.attach(baggage.set_baggage("enduser.id", "second"))
    track("second")
    context.detach(inner)
    context.detach(token)
    other = context.attach(baggage.set_baggage("unrelated", "x"))
    track("none")
    context.detach(other)
    assert who(inspector) == [("second", "second", None)]


def test_no_user_is_counted_and_told_once_per_site(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """An event without a user is never sent; the first time the warning names the place and what to do."""

    @track_feature("lonely")
    def lonely() -> None:
        """Do nothing."""

    for _ in range(3):
        lonely()
        track("anonymous")
    assert flush(10)
    assert inspector.items() == []
    assert stats().dropped == {"unattributed": 6}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "'lonely'" in messages[0]
    assert "test_no_user_is_counted_and_told_once_per_site.<locals>.lonely, line" in messages[0]
    assert "with user_context(user_id, group_id=...)" in messages[0]
    assert "bind_user" in messages[0]
    assert "tests.test_scope, line" in messages[1]
