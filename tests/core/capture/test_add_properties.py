"""add_properties reaches the innermost running call or block."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import arrived
from ts_autotrack import add_properties, track_feature
from ts_autotrack._core.capture.stack import additions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from tests.conftest import Inspector
    from ts_autotrack.typing import FinishedCall

pytestmark = pytest.mark.usefixtures("acting")


def test_add_properties_goes_to_the_innermost_call(inspector: Inspector) -> None:
    """The innermost running call or block gets the properties; the outer call keeps its own."""

    def helper(**values: object) -> None:
        add_properties(**values)

    @contextmanager
    def managed() -> Iterator[None]:
        with track_feature("managed"):
            yield

    @track_feature("inner")
    def inner() -> None:
        helper(where="inner")

    @track_feature("outer")
    def outer() -> None:
        helper(before=1)
        inner()
        with track_feature("block"), ExitStack() as stack:
            helper(where="block")
            inner()
            stack.enter_context(managed())
            helper(where="managed")
        helper(after=2)

    outer()
    found: dict[str, list[dict[str, Any]]] = {}
    for event in arrived(inspector):
        found.setdefault(event.pop("feature_name"), []).append({k: v for k, v in event.items() if k != "action"})
    assert found == {
        "inner": [{"where": "inner"}, {"where": "inner"}],
        "block": [{"where": "block"}],
        "managed": [{"where": "managed"}],
        "outer": [{"before": 1, "after": 2}],
    }


def test_add_properties_in_coroutines_and_generators(inspector: Inspector) -> None:
    """Awaited code belongs to the awaiting call; properties added between two steps are the consumer's."""

    @track_feature("step")
    async def step(number: int) -> None:
        await asyncio.sleep(0)
        add_properties(number=number)

    @track_feature("steps")
    async def steps() -> None:
        await asyncio.gather(step(1), step(2))
        await asyncio.sleep(0)
        add_properties(all=True)

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        add_properties(begun=True)
        yield 1
        add_properties(ended=True)

    @track_feature("consumer")
    def consume() -> None:
        for row in rows():
            add_properties(row=row)

    asyncio.run(steps())
    consume()
    events = [{k: v for k, v in event.items() if k != "action"} for event in arrived(inspector)]
    assert sorted(events[:2], key=str) == [
        {"feature_name": "step", "number": 1},
        {"feature_name": "step", "number": 2},
    ]
    assert events[2:] == [
        {"feature_name": "steps", "all": True},
        {"feature_name": "rows", "begun": True, "ended": True},
        {"feature_name": "consumer", "row": 1},
    ]


def test_add_properties_of_a_failed_call_are_forgotten(inspector: Inspector) -> None:
    """Properties of a failed call do not turn up in the next call's event."""

    @track_feature("flaky")
    def flaky(fail: bool) -> None:  # noqa: FBT001
        if fail:
            add_properties(bad=True)
            raise LookupError

    with pytest.raises(LookupError):
        flaky(fail=True)
    flaky(fail=False)
    assert arrived(inspector) == [{"feature_name": "flaky", "action": "flaky"}]


def test_properties_added_while_describing_belong_to_the_call(inspector: Inspector) -> None:
    """`add_properties` inside a `properties=` callable reaches the event, and nothing is kept afterwards."""
    alive: list[weakref.ref[Any]] = []

    class Big:
        """An object for weak references."""

    def describe(call: FinishedCall) -> dict[str, object]:
        alive.append(weakref.ref(call.args[0]))
        add_properties(added=1)
        return {"described": 1}

    @track_feature("f", properties=describe)
    def function(big: Big) -> None:
        """Do nothing."""

    function(Big())
    assert [(p["described"], p["added"]) for p in arrived(inspector)] == [(1, 1)]
    assert alive[0]() is None


class Request:
    """An object for weak references."""


def test_properties_added_before_the_coroutine_belong_to_its_call(inspector: Inspector) -> None:
    """A plain decorator around a coroutine function may attach properties; nothing of the call is kept."""

    def authenticated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inner(request: Request) -> Any:
            add_properties(auth="token")
            return function(request)

        return inner

    @track_feature("view")
    @authenticated
    async def view(_: Request) -> None:
        await asyncio.sleep(0)

    request = Request()
    alive = weakref.ref(request)
    asyncio.run(view(request))
    del request
    assert [p.get("auth") for p in arrived(inspector)] == ["token"]
    assert alive() is None
    assert additions == {}


def test_an_abandoned_call_is_collected() -> None:
    """A coroutine that nobody resumes, in a cycle with its own arguments, is collected with its properties."""

    @track_feature("stuck")
    async def stuck(request: Any) -> None:
        add_properties(a=1)
        await request.future

    class Future:
        """Yields once."""

        def __await__(self) -> Generator[None, None, None]:
            yield

    request: Any = Request()
    request.future = Future()
    request.coroutine = stuck(request)
    request.coroutine.send(None)
    assert len(additions) == 1
    alive = weakref.ref(request)
    del request
    gc.collect()
    assert alive() is None
    assert additions == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_forgets_the_calls_of_other_threads() -> None:
    """In a forked child the call that forked keeps its properties; the calls of other threads are gone."""
    inside, go = threading.Event(), threading.Event()

    @track_feature("other")
    def other() -> None:
        add_properties(a=1)
        inside.set()
        go.wait(10)

    @track_feature("forking")
    def forking() -> int:
        add_properties(b=1)
        child = os.fork()
        if not child:
            os._exit(0 if [found for *_, found in additions.values()] == [{"b": 1}] else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    try:
        assert forking() == 0
        assert len(additions) == 1
    finally:
        go.set()
        thread.join()


def nested(depth: int, function: Callable[[], None]) -> None:
    """Call a function on top of so many frames."""
    if depth:
        nested(depth - 1, function)
    else:
        function()


def test_the_search_for_the_call_is_bounded(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """`add_properties` reaches a call 150 frames away; further away it has no effect, says so, and costs no more."""
    seconds: dict[int, float] = {}

    @track_feature("deep")
    def deep(depth: int) -> None:
        def leaf() -> None:
            began = time.thread_time()
            for _ in range(20):
                add_properties(depth=depth)
            seconds[depth] = time.thread_time() - began

        nested(depth, leaf)

    for _ in range(3):
        for depth in (150, 240, 700):
            deep(depth)
    assert [p.get("depth") for p in arrived(inspector)] == [150, None, None] * 3
    assert seconds[700] < 3 * seconds[240]
    assert caplog.text.count("more than 200 frames inside") == 1


def test_finished_block_of_another_context_gets_no_more_properties(inspector: Inspector) -> None:
    """Properties added after another task closed the generator's block go to the block around the generator."""

    async def rows() -> AsyncGenerator[int, None]:
        with track_feature("rows"):
            yield 1

    async def main() -> None:
        with track_feature("outer"):
            running = rows()
            await anext(running)
            await asyncio.create_task(running.aclose())
            add_properties(mine=True)

    asyncio.run(main())
    assert {p["feature_name"]: p.get("mine") for p in arrived(inspector)} == {"rows": None, "outer": True}


def test_properties_of_another_task(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A task never reaches the call or block of another task: not one that started it, nor one whose stack it is on."""

    async def child() -> None:
        add_properties(of_the_child=1)

    @track_feature("call")
    async def call() -> None:
        await asyncio.create_task(child())
        await asyncio.to_thread(lambda: None)
        add_properties(own=1)

    async def block() -> None:
        with track_feature("block"):
            await asyncio.create_task(child())
            add_properties(own=1)

    @track_feature("function")
    def function() -> None:
        asyncio.run(child())
        add_properties(own=1)

    def function_with_a_block() -> None:
        with track_feature("block"):
            asyncio.run(child())
            add_properties(own=1)

    async def eagerly(work: Callable[[], Any]) -> None:
        if hasattr(asyncio, "eager_task_factory"):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await work()

    for work in (call, block):
        asyncio.run(work())
        asyncio.run(eagerly(work))
    function()
    function_with_a_block()
    events = arrived(inspector)
    assert [event["own"] for event in events] == [1] * 6
    assert not any("of_the_child" in event for event in events)
    assert "outside of every tracked call has no effect" in caplog.text
    assert not additions
