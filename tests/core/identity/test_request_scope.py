"""The request scope: one identity for a request, set from anywhere inside, seen by no other request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import ts_autotrack._core.capture.held as holding
from tests.core.conftest import account_closes
from tests.core.identity.conftest import users
from ts_autotrack import (
    bind_user,
    clear_user,
    configure,
    current_user,
    flush,
    propagate_context,
    request_scope,
    shutdown,
    stats,
    suppress,
    track,
    track_feature,
    user_context,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    import pytest

    from tests.conftest import Inspector


def test_starts_with_nobody_and_leaves_nothing(inspector: Inspector) -> None:
    """A request sees nothing of the user acting before, nor does later work see anything of the request."""
    with user_context("before", group_id="g", plan="pro"):
        with request_scope():
            track("visitor")
        track("after")
        with request_scope():
            bind_user("inside")
            track("bound")
        track("after")
        with request_scope():
            track("next visitor")
    bind_user("outside")
    with request_scope():
        track("a third visitor")
    track("outside")
    clear_user()
    assert users(inspector) == [
        ("after", "before", "g"),
        ("bound", "inside", None),
        ("after", "before", "g"),
        ("outside", "outside", None),
    ]
    assert stats().dropped == {"unattributed": 3}


def test_binding_reaches_the_whole_request(inspector: Inspector) -> None:
    """bind_user counts from anywhere inside: a child task, a thread with a copy of the context, a thread of a pool."""

    async def in_task() -> None:
        bind_user("task", group_id="g")

    async def in_thread() -> None:
        await asyncio.to_thread(bind_user, "thread", group_id="g")

    async def in_pool() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(propagate_context(bind_user), "pool", group_id="g").result()

    async def request(bind: Callable[[], Awaitable[None]]) -> None:
        async with request_scope():
            await asyncio.create_task(bind())  # type: ignore[arg-type]
            track(bind.__name__)

    async def main() -> None:
        await asyncio.gather(*(request(bind) for bind in (in_task, in_thread, in_pool)))

    asyncio.run(main())
    expected = [("in_pool", "pool", "g"), ("in_task", "task", "g"), ("in_thread", "thread", "g")]
    assert sorted(users(inspector)) == expected


def test_work_started_inside_goes_on_with_its_request(inspector: Inspector) -> None:
    """A task that outlives its request belongs to the request, while other requests go on with their own users."""

    async def main() -> None:
        ended = asyncio.Event()

        async def later() -> None:
            await ended.wait()
            track("later")

        async with request_scope():
            bind_user("first")
            task = asyncio.create_task(later())
        async with request_scope():
            bind_user("second")
            ended.set()
            await task
            track("second")

    asyncio.run(main())
    assert users(inspector) == [("later", "first", None), ("second", "second", None)]


def test_reused_thread(inspector: Inspector) -> None:
    """Requests on one thread of a pool, of which some bind a user, are credited to their own user or to nobody."""

    def request(number: int) -> None:
        with request_scope():
            if number % 3:
                bind_user(f"u{number}", group_id=f"g{number}", n=number)
            track("request", {"number": number})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(request, range(60)))
    flush()
    got = {(item["user_id"], item["context"]["group_id"], item["properties"]["n"]) for item in inspector.items()}
    assert got == {(f"u{n}", f"g{n}", n) for n in range(60) if n % 3}
    assert stats().dropped == {"unattributed": 20}


def test_the_resolver_is_asked_once_and_late(inspector: Inspector) -> None:
    """The resolver is asked at the first event only, in the caller's thread, and again after "not yet"."""
    asked: list[str] = []
    answers: Iterator[object] = iter(
        [None, {"user_id": "u", "account_id": "a", "device_type": "mobile", "plan": "pro"}]
    )

    def resolver() -> Any:
        asked.append(threading.current_thread().name)
        return next(answers)

    with request_scope(resolver):
        assert asked == []
        thread = threading.Thread(target=propagate_context(track), args=("early",), name="worker")
        thread.start()
        thread.join()
        assert asked == ["worker"]
        assert stats().pending == 1
        track("known")
        track("known")
        assert len(asked) == 2
    with request_scope(lambda: ("pair", "account")):
        track("pair")
    with request_scope(resolver):
        pass  # no event: the resolver is not asked
    assert sorted(users(inspector)) == [
        ("early", "u", "a"),
        ("known", "u", "a"),
        ("known", "u", "a"),
        ("pair", "pair", "account"),
    ]
    known = inspector.items()[0]
    assert known["properties"] == {"plan": "pro"}
    assert known["context"]["device_type"] == "mobile"


def test_events_before_the_login_wait(inspector: Inspector) -> None:
    """A login view's own event belongs to who logged in; a visitor's events are unattributed."""

    @track_feature("login")
    def login(user: str | None) -> None:
        track("page")
        if user:
            bind_user(user)

    for user in ("u", None):
        with request_scope():
            login(user)
            assert account_closes().pending >= 1
    assert users(inspector) == [("feature_used", "u", None), ("page", "u", None)]
    assert account_closes().dropped == {"unattributed": 2}


def test_a_later_user_takes_no_earlier_events(inspector: Inspector) -> None:
    """In a long connection, events before a login belong to the first user; events after a logout belong to nobody."""
    with request_scope():
        track("before")
        bind_user("first")
        bind_user("second")
        track("second")
        clear_user()
        track("logged out")
        bind_user("third")
        track("third")
    assert users(inspector) == [("before", "first", None), ("second", "second", None), ("third", "third", None)]
    assert stats().dropped == {"unattributed": 1}


def test_what_waits_is_bounded(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a request with many events and no user yet, the newest wait; the oldest go on with nobody."""
    monkeypatch.setattr(holding, "MAX_HELD", 10)
    with request_scope():
        for n in range(25):
            track("e", {"n": n})
        assert account_closes().accepted == 25
        bind_user("u")
    flush()
    assert [item["properties"]["n"] for item in inspector.items()] == [*range(15, 25)]
    assert account_closes().dropped == {"unattributed": 15}


def test_waiting_events_count_towards_the_queue(inspector: Inspector) -> None:
    """Events that wait for a user take their place in MAX_QUEUE."""
    configure(max_queue=5)
    with request_scope():
        for _ in range(8):
            track("e")
        bind_user("u")
    assert len(users(inspector)) == 5
    assert account_closes().dropped == {"queue_full": 3}


def test_shutdown_settles_what_waits(inspector: Inspector) -> None:
    """At shutdown, waiting events get the user known then; later events of the request are counted as dropped."""
    with request_scope():
        track("waits")
        bind_user("u")
        assert shutdown()
        track("late")
    assert [item["user_id"] for item in inspector.items()] == ["u"]
    assert account_closes().dropped == {"shutdown": 1}


def test_a_resolver_that_raises(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of the resolver is logged once and asked again a few times; the request goes on."""
    asked = []

    def resolver() -> str:
        asked.append(1)
        raise LookupError

    with request_scope(resolver):
        for _ in range(20):
            track("e")
        bind_user("u")
    assert len(users(inspector)) == 20
    assert len(asked) == 5
    assert caplog.text.count("the resolver of a request scope raised LookupError") == 1


def test_a_resolver_that_tracks(inspector: Inspector) -> None:
    """A tracked function called by the resolver does not ask again, and belongs to the user found."""

    @track_feature("load_user")
    def resolver() -> str:
        return "u"

    with request_scope(resolver):
        track("e")
    assert users(inspector) == [("e", "u", None), ("feature_used", "u", None)]


def test_events_of_a_user_of_their_own(inspector: Inspector) -> None:
    """An event that names its own user does not wait, and has the context of the request."""
    with request_scope(context={"referrer": "r"}):
        track_feature("job", user_id="service")(lambda: None)()
        track("e", user_id="own")
        assert users(inspector) == [("feature_used", "service", None), ("e", "own", None)]
    assert [item["context"]["referrer"] for item in inspector.items()] == ["r", "r"]


def test_work_of_the_resolver_at_the_end(inspector: Inspector) -> None:
    """A tracked function that the resolver calls at the end of a request belongs to the request."""
    signed_in: list[str] = []

    @track_feature("load_user")
    def load_user() -> str:
        return signed_in[0]

    request = request_scope(lambda: load_user() if signed_in else None).begin()
    with request:
        track("e")
    signed_in.append("u")
    request.end()
    assert users(inspector) == [("e", "u", None), ("feature_used", "u", None)]


def test_async_resolver(inspector: Inspector) -> None:
    """An async resolver is awaited at the end of the request, or when a server settles a long connection."""

    async def resolver() -> tuple[str, str]:
        await asyncio.sleep(0)
        return "u", "g"

    async def main() -> None:
        async with request_scope(resolver):
            track("first")
        request = request_scope(resolver).begin()
        with request:
            track("before")
        await request.settle()
        with request:
            track("settled")
            assert current_user().user_id == "u"
        await request.aend()
        async with request_scope(resolver):
            pass

    asyncio.run(main())
    assert sorted(users(inspector)) == [("before", "u", "g"), ("first", "u", "g"), ("settled", "u", "g")]


def test_async_resolver_that_nobody_awaits(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """An async resolver in a synchronous request is explained; its events are unattributed."""

    async def resolver() -> str:
        return "u"  # pragma: no cover - never awaited

    with request_scope(resolver):
        track("e")
    assert users(inspector) == []
    assert "the resolver of a request scope is async" in caplog.text


def test_async_resolver_of_a_cancelled_request(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A cancellation ends the wait: nobody is asked again, and no message says that the application awaited nothing."""
    asked: list[asyncio.Task[None] | None] = []

    async def resolver() -> None:
        asked.append(asyncio.current_task())
        await asyncio.Event().wait()

    async def handle() -> None:
        asyncio.get_running_loop().call_soon(lambda: asked[0] and asked[0].cancel())
        async with request_scope(resolver):
            track("e")

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(handle())
    assert (users(inspector), len(asked)) == ([], 1)
    assert "the resolver of a request scope" not in caplog.text


def test_steps(inspector: Inspector) -> None:
    """A request that is worked at in steps, on several threads, has one identity; between the steps nobody acts."""
    request = request_scope().begin()
    with request:
        track("step")
    track("between")
    threads = [threading.Thread(target=step, args=(request, n)) for n in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    request.end()
    request.end()
    assert users(inspector) == [
        ("step 1", "u", None),
        ("step 2", "u", None),
        ("step", "u", None),
        ("step 0", "u", None),
    ]


def step(request: Any, number: int) -> None:
    """Work at a request; the second step binds its user."""
    with request:
        if number == 1:
            bind_user("u")
        track(f"step {number}")


def test_blocks_inside(inspector: Inspector) -> None:
    """A block inside adds its values to the request's user; a block with another user starts anew."""
    with request_scope(lambda: ("u", "g"), context={"device_type": "mobile", "referrer": "r", "custom": 1}):
        with user_context(plan="pro"):
            track("plan")
            with user_context("victim", session_id="s"):
                track("victim")
                bind_user("victim", seat=1)
                track("bound in the block")
            bind_user("other")
            track("other")
        track("other")
        with suppress():
            track("suppressed")
            bind_user("while suppressed")
        track("last")
    flush()
    assert [(item["event_name"], item["user_id"], item["properties"]) for item in inspector.items()] == [
        ("plan", "u", {"plan": "pro"}),
        ("victim", "victim", {}),
        ("bound in the block", "victim", {"seat": 1}),
        ("other", "other", {}),
        ("other", "other", {}),
        ("last", "while suppressed", {}),
    ]
    contexts = [{**item["context"]} for item in inspector.items()]
    assert all(context["device_type"] == "mobile" and context["referrer"] == "r" for context in contexts)
    assert ["custom" in context for context in contexts] == [True, False, False, False, False, False]
    assert [context.get("group_id") for context in contexts] == ["g", None, None, None, None, None]


def test_left_out_of_order(inspector: Inspector) -> None:
    """A block inside that is never left ends with its request; a request left elsewhere leaves nobody behind."""
    with request_scope():
        user_context("left open").__enter__()
    track("after the request")
    stack = contextlib.ExitStack()
    stack.enter_context(request_scope(lambda: "elsewhere"))
    thread = threading.Thread(target=propagate_context(stack.close))
    thread.start()
    thread.join()
    track("after the other request")
    with request_scope():
        track("next")
    assert users(inspector) == []
    assert stats().dropped == {"unattributed": 3}
    clear_user()


def test_suppression_around(inspector: Inspector) -> None:
    """An open suppress() around a request stays in force."""
    with suppress(), request_scope(lambda: "u"):
        track("suppressed")
        with request_scope(lambda: "u").begin(), request_scope(lambda: "u"):
            track("suppressed, too")
    with request_scope(lambda: "u"):
        track("sent")
    assert users(inspector) == [("sent", "u", None)]


def test_the_context_is_read_once_and_late(inspector: Inspector) -> None:
    """The context of a request is read at the first event; a callable that raises costs the context only."""
    read: list[int] = []

    def context() -> dict[str, object]:
        read.append(1)
        return {"referrer": "https://example.com/"}

    with request_scope(lambda: "u", context=context):
        assert not read
        track("e")
        track("e")
    assert len(read) == 1
    flush()
    assert [item["context"]["referrer"] for item in inspector.items()] == ["https://example.com/"] * 2


def test_an_ended_request_is_freed_at_once(inspector: Inspector) -> None:
    """The headers and the session of a request need no garbage collection: they may hold much, and credentials."""

    class Connection:
        def user(self) -> str:
            return "jane"

        def nothing(self) -> dict[str, str]:
            return {}

    def serve() -> weakref.ref[Connection]:
        connection = Connection()
        request = request_scope(connection.user, context=connection.nothing, headers=connection.nothing).begin()
        with request:
            track("work")
            with user_context("joe"):
                track("work")
        request.end()
        return weakref.ref(connection)

    gc.disable()
    try:
        freed = [serve()() is None for _ in range(3)]
    finally:
        gc.enable()
    assert freed == [True] * 3
    assert users(inspector) == [("work", "jane", None), ("work", "joe", None)] * 3


def test_the_library_is_off(inspector: Inspector) -> None:
    """While the library is off, neither the resolver nor the context is asked, and no event waits."""
    configure(disabled=True)
    asked: list[str] = []

    def resolver() -> str:
        asked.append("user")
        return "u"

    def context() -> Mapping[str, object]:
        asked.append("context")
        return {}

    with request_scope(resolver, context=context):
        track("e")
    assert not asked
    assert account_closes().pending == 0
    assert inspector.items() == []
