"""add_properties reaches the innermost running call or block."""

from __future__ import annotations

import asyncio
import weakref
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import arrived
from ts_autotrack import add_properties, track_feature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

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
