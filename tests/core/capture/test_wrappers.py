"""Calls with an end of their own: coroutines, generators and async generators."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from tests.core.conftest import arrived
from tests.core.subjects import AsyncCallable
from ts_autotrack import flush, stats, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


@pytest.mark.filterwarnings("ignore:'asyncio.iscoroutinefunction' is deprecated")
def test_coroutines(inspector: Inspector) -> None:
    """The event of a coroutine belongs to its end; a coroutine never awaited makes no event."""

    @track_feature("coroutine")
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    tracked_object = track_feature("async_object")(AsyncCallable())
    tracked_partial = track_feature("async_partial")(functools.partial(work))
    assert inspect.iscoroutinefunction(work)
    assert asyncio.iscoroutinefunction(work)
    assert inspect.iscoroutinefunction(tracked_partial)
    never = work()
    never.close()
    assert asyncio.run(work()) == "done"
    assert asyncio.run(tracked_object()) == "awaited"
    assert asyncio.run(tracked_partial()) == "done"
    names = [event["feature_name"] for event in arrived(inspector)]
    assert names == ["coroutine", "async_object", "coroutine", "async_partial"]


def test_generator_forwards_everything_and_counts_its_end(inspector: Inspector) -> None:
    """send, throw, close and the return value pass through; the event comes with the end, not with the first step."""

    @track_feature("generator", capture=["start"])
    def numbers(start: int) -> Generator[int, int, str]:
        try:
            got = yield start
            got = yield got + 1
        except KeyError:
            got = yield -1
        return f"ended {got}"

    assert inspect.isgeneratorfunction(numbers)
    running = numbers(5)
    assert [next(running), running.send(6), running.throw(KeyError())] == [5, 7, -1]
    assert flush(5)
    assert inspector.items() == []
    with pytest.raises(StopIteration) as stop:
        running.send(9)
    assert stop.value.value == "ended 9"
    assert arrived(inspector) == [{"feature_name": "generator", "action": "numbers", "start": 5}]


def test_generator_closed_early_counts_as_used(inspector: Inspector) -> None:
    """A generator closed early counts as used; a generator never begun does not."""
    closed = []

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    running = rows()
    assert next(running) == 0
    running.close()
    rows().close()
    rows()
    assert closed == [True]
    assert len(arrived(inspector)) == 1


def test_generators_in_a_row(inspector: Inspector) -> None:
    """Each run of a generator counts."""

    @track_feature("rows")
    def rows() -> Iterator[int]:
        yield 1

    for _ in range(3):
        assert list(rows()) == [1]
    assert len(arrived(inspector)) == 3


def test_failing_generator_makes_no_event(inspector: Inspector) -> None:
    """A generator makes no event if its code raises, or if its consumer throws an exception into the generator."""

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        list(rows())
    thrown = rows()
    next(thrown)
    with pytest.raises(OSError, match="from outside"):
        thrown.throw(OSError("from outside"))
    assert arrived(inspector) == []
    assert stats().accepted == 0


def test_async_generator_forwards_everything(inspector: Inspector) -> None:
    """asend, athrow and aclose pass through; closing early counts as used; a failure does not."""
    closed = []

    @track_feature("stream")
    async def stream(fail: bool = False) -> AsyncGenerator[int, int]:  # noqa: FBT001, FBT002
        try:
            got = yield 1
            got = yield got + 1
            if fail:
                raise LookupError
        except KeyError:
            yield -1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        running = stream()
        assert [await anext(running), await running.asend(6), await running.athrow(KeyError())] == [1, 7, -1]
        assert [item async for item in running] == []
        async with aclosing(stream()) as early:
            assert await anext(early) == 1
        failing = stream(fail=True)
        await anext(failing)
        await failing.asend(1)
        with pytest.raises(LookupError):
            await anext(failing)
        await stream().aclose()

    assert inspect.isasyncgenfunction(stream)
    asyncio.run(main())
    assert closed == [True] * 3
    assert len(arrived(inspector)) == 2


def test_abandoned_generator_is_its_own_users(inspector: Inspector) -> None:
    """A generator collected while another user acts counts for its own user."""

    @track_feature("rows")
    def rows() -> Iterator[int]:
        yield 1
        yield 2

    def block() -> Iterator[int]:
        with track_feature("block"):
            yield 1

    class Holder:
        """A reference cycle."""

    def begin() -> None:
        with user_context("alice", group_id="a"):
            for generator in (rows(), block()):
                next(generator)
                holder: Any = Holder()
                holder.itself, holder.generator = holder, generator

    gc.disable()
    try:
        begin()
        with user_context("bob", group_id="b"):
            gc.collect()
    finally:
        gc.enable()
    assert flush(10)
    assert [(item["user_id"], item["properties"]["feature_name"]) for item in inspector.items()] in (
        [("alice", "rows"), ("alice", "block")],
        [("alice", "block"), ("alice", "rows")],
    )


def test_event_loop_closes_abandoned_async_generators_without_complaint() -> None:
    """Async generators left suspended at the end of the loop are closed once, by the wrapper."""
    code = """
import asyncio, gc
from ts_autotrack import track_feature, user_context
closed = []
async def rows():
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0.01)
        closed.append(1)
async def main():
    global kept
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no complaint
    kept = [track_feature("f")(rows)(), user_context("u")(rows)()]
    for generator in kept: await anext(generator)
    dropped = track_feature("f")(rows)(); await anext(dropped)
    cycle = [dropped]; cycle.append(cycle); del dropped, cycle
    gc.collect(); await asyncio.sleep(0.05)
asyncio.run(main(), debug=True)
print(len(closed))
"""
    done = run_python(code, TS_AUTOTRACK_DISABLED="1")
    assert (done.stdout, done.stderr) == ("3\n", "")
