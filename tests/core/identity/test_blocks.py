"""Blocks left in another context, out of order, or shared by concurrent tasks."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import TYPE_CHECKING, Any

from tests.core.identity.conftest import users
from ts_autotrack import bind_user, stats, suppress, track, track_feature, user_context
from ts_autotrack._core.identity.scope import MAX_BOUND, Scope, current

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.conftest import Inspector


def test_block_left_in_another_context_ends_quietly(inspector: Inspector) -> None:
    """An async generator closed by another task raises nothing, and its first task does not keep its user."""

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
    assert users(inspector) == [("after", "task", "g"), ("nested", "task", "g")]


def test_blocks_left_out_of_order(inspector: Inspector) -> None:
    """A block ended before a block entered later leaves no trace once the later block has ended."""
    first, second = user_context("first", group_id="g"), user_context("second", group_id="g")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    track("second")
    second.__exit__(None, None, None)
    second.__exit__(None, None, None)
    track("nobody")
    assert users(inspector) == [("second", "second", "g")]


def test_block_left_in_a_copy_of_its_context_and_then_in_its_own(inspector: Inspector) -> None:
    """Leaving a block twice, once in a copied context, restores both contexts."""
    block = user_context("u", group_id="g")
    block.__enter__()
    contextvars.copy_context().run(block.__exit__, None, None, None)
    block.__exit__(None, None, None)
    track("nobody")
    assert users(inspector) == []


def test_a_destroyed_task_ends_its_own_scope_only(inspector: Inspector) -> None:
    """A decorator serves many tasks: collecting a pending task changes no other task's identity or suppression."""

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
    assert users(inspector) == [("robot", "robot", "r")]
    assert stats().dropped == {"suppressed": 1}


def test_block_may_be_shared_by_concurrent_tasks(inspector: Inspector) -> None:
    """A `user_context` object serves many tasks at once, and nests in itself."""
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
    assert users(inspector) == [("in", "shared", "g")] * 5
    assert stats().dropped == {"unattributed": 5}


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
    assert users(inspector) == [("feature_used", "bound", "g"), ("feature_used", "task", "g")]


def test_many_bindings_inside_one_block(inspector: Inspector) -> None:
    """Each task inside a block around a whole server keeps its own binding."""
    names = [f"u{n}" for n in range(MAX_BOUND + 10)]

    async def request(user: str) -> None:
        bind_user(user, group_id="g")
        await asyncio.sleep(0)
        track("request")

    async def main() -> None:
        async with user_context(location="x"):
            await asyncio.gather(*map(request, names))

    asyncio.run(main())
    assert users(inspector) == [("request", user, "g") for user in names]


def test_a_scope_keeps_neither_its_block_nor_its_context_alive() -> None:
    """A waiting event holds its scope, but neither the values of the block nor those of other context variables."""

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
