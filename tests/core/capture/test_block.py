"""Blocks of `with track_feature(...)`: nesting, sharing, and leaving in another context."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

import pytest

from tests.core.conftest import arrived
from ts_autotrack import add_properties, bind_user, flush, stats, track_feature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


def test_block_form(inspector: Inspector) -> None:
    """`with` and `async with` track a block; `use.set` attaches; a failing block makes no event."""

    async def main() -> None:
        async with track_feature("async_block") as use:
            use.set(rows=2)

    with track_feature("block", properties={"a": 1}) as use:
        use.set(rows=1)
        use.set(rows=3)
    asyncio.run(main())
    with pytest.raises(LookupError), track_feature("failing"):
        raise LookupError
    use.set(rows=99)
    assert arrived(inspector) == [
        {"feature_name": "block", "a": 1, "rows": 3},
        {"feature_name": "async_block", "rows": 2},
    ]


def test_shared_block_nests_and_is_left_in_any_order(inspector: Inspector) -> None:
    """A `track_feature` object serves nested blocks, and blocks left out of order."""
    shared = track_feature("shared")
    with shared as outer:
        outer.set(level=1)
        with shared as inner:
            inner.set(level=2)
    first, second = track_feature("first"), track_feature("second")
    first.__enter__().set(n=1)
    second.__enter__().set(n=2)
    first.__exit__(None, None, None)
    add_properties(late=True)
    second.__exit__(None, None, None)
    add_properties(nowhere=True)
    assert [(p["feature_name"], p.get("level"), p.get("n"), p.get("late")) for p in arrived(inspector)] == [
        ("shared", 2, None, None),
        ("shared", 1, None, None),
        ("first", None, 1, None),
        ("second", None, 2, True),
    ]


def test_block_in_a_generator_left_in_another_context(inspector: Inspector) -> None:
    """A block inside an async generator closed by another task ends without an exception, and is counted."""

    async def rows() -> AsyncGenerator[int, None]:
        with track_feature("rows"):
            yield 1
            yield 2

    async def main() -> None:
        running = rows()
        await asyncio.create_task(anext(running))
        await asyncio.create_task(running.aclose())

    asyncio.run(main())
    assert [event["feature_name"] for event in arrived(inspector)] == ["rows"]


def test_shared_block_never_mixes_users(inspector: Inspector) -> None:
    """A block object open in two contexts and left in a third gives neither user's event to the other."""
    shared = track_feature("shared")
    first, second = contextvars.copy_context(), contextvars.copy_context()

    def enter(user: str) -> None:
        bind_user(user, group_id="g")
        shared.__enter__().set(who=user)

    first.run(enter, "a")
    second.run(enter, "b")
    contextvars.Context().run(shared.__exit__, None, None, None)
    first.run(shared.__exit__, None, None, None)
    second.run(shared.__exit__, None, None, None)
    shared.__exit__(None, None, None)
    assert flush(10)
    assert [(item["user_id"], item["properties"]["who"]) for item in inspector.items()] == [("a", "a"), ("b", "b")]
    assert stats().dropped == {"invalid": 2}
