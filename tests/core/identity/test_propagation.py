"""current_user and propagate_context: passing the acting user on."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import baggage
from opentelemetry import context as otel

from tests.core.identity.conftest import users
from ts_autotrack import bind_user, clear_user, current_user, propagate_context, request_scope, track, user_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


def test_current_user() -> None:
    """current_user returns the acting user, and the way in which the user became known."""
    assert current_user() == (None, None, {}, {}, None, False)
    with user_context("u", group_id="g", plan="pro", device_type="mobile"):
        assert current_user() == ("u", "g", {"device_type": "mobile"}, {"plan": "pro"}, "user_context", False)
        bind_user("v")
        assert current_user() == ("v", None, {"device_type": "mobile"}, {}, "bind_user", False)
        clear_user()
        assert current_user().user_id is None
    token = otel.attach(baggage.set_baggage("user.id", "carried"))
    assert (current_user().user_id, current_user().source) == ("carried", "baggage")
    otel.detach(token)
    with request_scope(lambda: "r"):
        assert (current_user().user_id, current_user().source) == ("r", "resolver")
        bind_user("s")
        assert (current_user().user_id, current_user().source) == ("s", "bind_user")


def test_its_dicts_are_copies() -> None:
    """Changing the answer of current_user changes no event."""
    with user_context("u", plan="pro"):
        current_user().properties["plan"] = "changed"
        assert current_user().properties == {"plan": "pro"}


def test_threads_and_executors(inspector: Inspector) -> None:
    """A propagated callable acts for the user of the place where it was made, and leaves nothing on the thread."""

    class Job:
        def run(self) -> None:
            track("method")

    with ThreadPoolExecutor(1) as pool:
        with user_context("u", group_id="g"):
            jobs: list[Any] = [
                propagate_context(track),
                partial(propagate_context(Job().run)),
                propagate_context(partial(track, "partial")),
            ]
            thread = threading.Thread(target=propagate_context(partial(track, "thread")))
        thread.start()
        thread.join()
        pool.submit(jobs[0], "function").result()
        for job in jobs[1:]:
            pool.submit(job).result()
        pool.submit(track, "nobody's").result()
    expected = ["thread", "function", "method", "partial"]
    assert users(inspector) == [(name, "u", "g") for name in expected]


def test_every_kind_of_callable(inspector: Inspector) -> None:
    """Coroutine functions, generators and classes run for the user, too; results and classes stay what they are."""

    async def coroutine(name: str) -> str:
        await asyncio.sleep(0)
        track(name)
        return name

    def generator() -> Iterator[int]:
        track("generator")
        yield 1

    class Made:
        def __init__(self) -> None:
            track("class")

    with user_context("u"):
        carried: Any = [propagate_context(each) for each in (coroutine, generator, Made)]
    assert asyncio.run(carried[0]("coroutine")) == "coroutine"
    assert list(carried[1]()) == [1]
    assert type(carried[2]()) is Made
    assert users(inspector) == [(name, "u", None) for name in ("coroutine", "generator", "class")]


def test_of_nobody(inspector: Inspector) -> None:
    """A callable propagated by nobody acts for nobody, whoever calls it."""
    carried = propagate_context(track)
    with user_context("u"):
        carried("nobody's")
        track("own")
    assert users(inspector) == [("own", "u", None)]


def test_inside_a_request(inspector: Inspector) -> None:
    """A callable propagated inside a request belongs to the request: it sees a later login, and may be one."""
    with request_scope():
        carried = propagate_context(track)
        login = propagate_context(bind_user)
    threads = [threading.Thread(target=login, args=("u",)), threading.Thread(target=carried, args=("later",))]
    for thread in threads:
        thread.start()
        thread.join()
    assert users(inspector) == [("later", "u", None)]
