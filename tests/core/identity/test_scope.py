"""The user and account of an event: ids, tasks and threads, bindings, and events without a user."""

from __future__ import annotations

import asyncio
import enum
import threading
from typing import TYPE_CHECKING
from uuid import UUID

from tests.core.identity.conftest import users
from ts_autotrack import (
    bind_user,
    clear_user,
    flush,
    request_scope,
    stats,
    suppress,
    track,
    track_feature,
    user_context,
)

if TYPE_CHECKING:
    import pytest

    from tests.conftest import Inspector


def test_ids_become_text(inspector: Inspector) -> None:
    """Database ids of any type are sent as text; an invalid id means no user, not the user of the enclosing block."""

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
    assert users(inspector) == [("ints", *expected), ("no group", "svc", None)]
    assert stats().dropped == {"unattributed": 12}


def test_tasks_and_threads_are_isolated(inspector: Inspector) -> None:
    """Concurrent tasks see their own user across awaits; a child task inherits; a thread starts without a user."""

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
    arrived = users(inspector)
    assert sorted(user for name, user, _ in arrived if name == "request") == sorted(f"u{n}" for n in range(20))
    assert sorted(user for name, user, _ in arrived if name == "child") == sorted(f"u{n}" for n in range(20))
    assert len(arrived) == 40
    assert stats().dropped == {"unattributed": 1}


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
    assert users(inspector) == [
        ("feature_used", "bound", "g"),
        ("still", "bound", "g"),
        ("again", "again", None),
        ("before", "before", "b"),
        ("top", "top", "t"),
    ]
    assert [item["properties"] for item in inspector.items()][-2:] == [{"plan": "old"}, {}]
    assert "location" not in inspector.items()[-1]["context"]
    assert stats().dropped == {"unattributed": 3, "suppressed": 1}


def test_suppression_inside_a_request(inspector: Inspector) -> None:
    """Nothing of a suppressed block is sent, whether the request's user is known before or later."""

    @track_feature("function")
    def function() -> None:
        """Do nothing."""

    def suppressed() -> None:
        with suppress():
            track("e")
            track("e", user_id="own")
            function()
            with track_feature("block"), user_context("inner"):
                pass

    with request_scope():
        suppressed()
        bind_user("u")
        suppressed()
        track("after")
    assert users(inspector) == [("after", "u", None)]
    assert stats().dropped == {"suppressed": 8}


def test_no_user_is_counted_and_told_once_per_site(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """An event without a user is never sent; the first warning names the place and the remedy."""

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
    assert "tests.core.identity.test_scope, line" in messages[1]
