"""Kinds of work: marked functions, work that a plain function returns, context managers, old coroutines.

Every kind is tracked to the end of its work, and runs inside of `user_context` and `suppress` for all of its work.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import iscoroutinefunction as asgiref_iscoroutinefunction
from asgiref.sync import markcoroutinefunction as asgiref_mark

from tests.conftest import run_python
from tests.core.conftest import arrived
from ts_autotrack import add_properties, flush, stats, suppress, track, track_feature, user_context
from ts_autotrack._core import diagnostics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")

ON = pytest.mark.parametrize("on", ["success", "always"])


def asyncio_mark(function: Any) -> Any:
    """Mark a function as a coroutine function as older libraries do."""
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return function


MARKS: list[Callable[[Any], Any]] = [asgiref_mark]
if sys.version_info >= (3, 12):
    MARKS.append(inspect.markcoroutinefunction)
if sys.version_info < (3, 14):
    MARKS.append(asyncio_mark)


def features(inspector: Inspector) -> list[tuple[str, str | None]]:
    """Return the feature and the outcome of the arrived events."""
    return [(event["feature_name"], event.get("outcome")) for event in arrived(inspector)]


def users(inspector: Inspector) -> list[str]:
    """Return the users of the arrived events."""
    assert flush(10)
    return [item["user_id"] for item in inspector.items()]


async def work(fail: bool = False) -> str:  # noqa: FBT001, FBT002
    """Track an event, and succeed or fail."""
    track("inside")
    await asyncio.sleep(0)
    if fail:
        raise LookupError
    track("inside")
    return "done"


def rows() -> Generator[int, None, str]:
    """Track an event in each step."""
    track("inside")
    yield 1
    track("inside")
    return "done"


async def stream() -> AsyncIterator[int]:
    """Track an event in each step."""
    track("inside")
    yield 1
    track("inside")


@pytest.mark.parametrize("mark", MARKS)
def test_marked_coroutine_functions(mark: Any, inspector: Inspector) -> None:
    """A function marked as a coroutine function keeps its mark, and counts at its awaited end; a failure is none."""

    def make() -> Any:
        return mark(lambda fail: work(fail))  # noqa: PLW0108

    for decorate in (track_feature("f"), track_feature("g", on="error"), user_context("u"), suppress()):
        decorated = decorate(make())
        for judge in (asyncio.iscoroutinefunction, inspect.iscoroutinefunction, asgiref_iscoroutinefunction):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert judge(decorated) == judge(make())
        with suppress():
            waiting = decorated(True)
        with pytest.raises(LookupError):
            asyncio.run(waiting)
        assert asyncio.run(decorated(False)) == "done"
    tracked = [event["feature_name"] for event in arrived(inspector) if "feature_name" in event]
    assert tracked == ["f", "g"]


@ON
def test_marked_coroutine_function_of_no_coroutine(on: Any, inspector: Inspector) -> None:
    """A marked function that returns a value at once counts at once."""
    tracked: Any = track_feature("f", on=on)(asgiref_mark(lambda: "value"))
    assert tracked() == "value"
    assert len(arrived(inspector)) == 1


@pytest.mark.parametrize("block", [user_context("other"), suppress()])
def test_blocks_hold_for_returned_work(block: Any, inspector: Inspector) -> None:
    """All work that a decorated plain function returns runs inside of the block, and its consumer outside."""

    async def consume(items: Any) -> None:
        async for _ in items:
            track("outside")

    asyncio.run(block(lambda: work())())  # noqa: PLW0108
    for _ in block(lambda: rows())():  # noqa: PLW0108
        track("outside")
    asyncio.run(consume(block(lambda: stream())()))  # noqa: PLW0108
    asyncio.run(consume(block(asgiref_mark(lambda: stream()))()))  # noqa: PLW0108
    assert flush(10)
    found = [(item["event_name"], item["user_id"]) for item in inspector.items()]
    if isinstance(block, suppress):
        assert found == [("outside", "user_1")] * 3
        assert stats().dropped == {"suppressed": 8}
    else:
        inside, outside = ("inside", "other"), ("outside", "user_1")
        assert found == [inside, inside, *[inside, outside, inside] * 3]


@ON
def test_returned_coroutines(on: Any, inspector: Inspector) -> None:
    """A returned coroutine counts once it has ended, in any task; one closed early or never awaited does not."""

    @track_feature("f", on=on)
    def tracked(fail: bool = False) -> Any:  # noqa: FBT001, FBT002
        return work(fail)

    async def main() -> None:
        waiting = tracked()
        assert inspect.iscoroutine(waiting)
        assert (waiting.__name__, waiting.__qualname__) == ("work", "work")
        assert await asyncio.create_task(waiting) == "done"
        with pytest.raises(LookupError):
            await tracked(fail=True)
        assert list(await asyncio.gather(tracked(), tracked())) == ["done", "done"]
        tracked().close()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tracked()
            gc.collect()
        assert [str(warning.message) for warning in caught] == ["coroutine 'work' was never awaited"]

    asyncio.run(main())
    expected = [None, None, None] if on == "success" else ["success", "error", "success", "success"]
    assert [event.get("outcome") for event in arrived(inspector) if "feature_name" in event] == expected


@ON
def test_returned_coroutine_is_the_awaiting_users(on: Any, inspector: Inspector) -> None:
    """A returned coroutine that another user's task awaits counts for this user, as of a coroutine function."""

    async def quiet() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        for function in (lambda: quiet(), quiet):  # noqa: PLW0108
            with user_context("maker"):
                decorated: Any = track_feature("f", on=on)(function)
                waiting = decorated()
            with user_context("awaiter"):
                task = asyncio.create_task(waiting)
            await task

    asyncio.run(main())
    assert users(inspector) == ["awaiter", "awaiter"]


@ON
def test_returned_generators(on: Any, inspector: Inspector) -> None:
    """A returned generator counts at its end, or closed once begun; one never begun or failed does not."""

    @track_feature("f", on=on)
    def tracked() -> Any:
        return rows()

    running = tracked()
    assert (inspect.isgenerator(running), running.__name__) == (True, "rows")
    assert next(running) == 1
    assert stats().accepted == 1
    with pytest.raises(StopIteration, match="done"):
        next(running)
    begun = tracked()
    next(begun)
    begun.close()
    del begun  # Python 3.13 closes a watched generator without a trace; its end is seen when it is collected
    tracked().close()
    thrown = tracked()
    next(thrown)
    with pytest.raises(LookupError):
        thrown.throw(LookupError())
    expected = [None, None] if on == "success" else ["success", "success", "error"]
    assert [event.get("outcome") for event in arrived(inspector) if "feature_name" in event] == expected


@ON
def test_returned_async_generators(on: Any, inspector: Inspector) -> None:
    """A returned async generator counts at its end, or closed once begun; one never begun does not."""

    @track_feature("f", on=on)
    def tracked() -> Any:
        return stream()

    async def main() -> None:
        assert [item async for item in tracked()] == [1]
        async with contextlib.aclosing(tracked()) as begun:
            assert await anext(begun) == 1
        await tracked().aclose()
        thrown = tracked()
        await anext(thrown)
        with pytest.raises(LookupError):
            await thrown.athrow(LookupError())

    asyncio.run(main())
    expected = [None, None] if on == "success" else ["success", "success", "error"]
    assert [event.get("outcome") for event in arrived(inspector) if "feature_name" in event] == expected


@ON
def test_returned_tasks_and_futures(on: Any, inspector: Inspector) -> None:
    """A returned task or future of asyncio is returned itself, and counts when it is done; a failure does not."""

    @track_feature("f", on=on)
    def tracked(future: Any) -> Any:
        add_properties(seen=True)
        return future

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done, failed, cancelled = loop.create_future(), loop.create_future(), loop.create_future()
        gathered = asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        for future in (done, failed, cancelled, gathered):
            with user_context("beginner"):
                assert tracked(future) is future
        assert stats().accepted == 0
        done.set_result(1)
        failed.set_exception(LookupError())
        cancelled.cancel("why")
        with pytest.raises(LookupError):
            await failed
        with pytest.raises(asyncio.CancelledError) as caught:
            await cancelled
        assert caught.value.args == ("why",) or sys.version_info < (3, 11)
        await gathered
        task = tracked(asyncio.create_task(asyncio.sleep(0, "slept")))
        assert await task == "slept"
        await asyncio.sleep(0)
        assert tracked(task) is task

    asyncio.run(main())
    expected = [None] * 4 if on == "success" else ["success", "error", "error", "success", "success", "success"]
    events = arrived(inspector)
    assert [event.get("outcome") for event in events] == expected
    assert [event["seen"] for event in events] == [True] * len(expected)
    assert users(inspector).count("beginner") == len(expected) - 2


def test_returned_future_of_a_closed_loop(inspector: Inspector) -> None:
    """A finished future whose event loop is closed counts at once."""
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    future.set_result(1)
    loop.close()
    for on in ("success", "always"):
        tracked: Any = track_feature("f", on=on)(lambda: future)
        assert tracked() is future
    assert len(arrived(inspector)) == 2


@ON
def test_returned_futures_of_executors(on: Any, inspector: Inspector) -> None:
    """A returned future of an executor counts when it is done; one that failed or was cancelled does not."""

    def fail() -> None:
        raise LookupError

    with ThreadPoolExecutor(1) as pool:
        submit: Any = track_feature("f", on=on)(lambda *args: pool.submit(*args))  # noqa: PLW0108
        assert submit(lambda: 3).result(10) == 3
        assert isinstance(submit(fail).exception(10), LookupError)
        begun, release = pool.submit(lambda: None), threading.Event()
        begun.result(10)
        pool.submit(release.wait, 10)
        assert submit(lambda: None).cancel()
        release.set()
    expected = [("f", None)] if on == "success" else [("f", "success"), ("f", "error"), ("f", "error")]
    assert features(inspector) == expected


def test_futures_of_modules_imported_later(inspector: Inspector) -> None:
    """A future counts when it is done, also if its module was imported after the decoration."""
    code = f"""
import sys, ts_autotrack as ts
assert "concurrent.futures" not in sys.modules
@ts.track_feature("f")
def submit(pool, function): return pool.submit(function)
from concurrent.futures import ThreadPoolExecutor
ts.configure(endpoint={inspector.endpoint!r})
with ts.user_context("u"), ThreadPoolExecutor(1) as pool:
    ts.track("first")
    submit(pool, lambda: 1 / 0).exception()
    submit(pool, lambda: 1).result()
assert ts.flush(10)
"""
    done = run_python(code, THRIVESTACK_API_KEY="")
    assert done.returncode == 0, done.stderr
    assert [item["event_name"] for item in inspector.items()] == ["first", "feature_used"]


@ON
def test_asyncio_still_reports_exceptions_never_retrieved(on: Any) -> None:
    """The failure of a followed future that nobody looks at is reported by asyncio, as without tracking."""

    async def main() -> list[str]:
        reports: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
        future = track_feature("f", on=on)(lambda: loop.create_future())()  # noqa: PLW0108
        future.set_exception(LookupError())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del future
        gc.collect()
        return reports

    assert asyncio.run(main()) == ["Future exception was never retrieved"]


@pytest.mark.parametrize("above", [True, False])
def test_context_managers(above: bool, inspector: Inspector) -> None:  # noqa: FBT001
    """A context manager counts at the end of its block, in both orders of decorators; not if the block raises."""
    feature, manage = track_feature("f", capture=["name"]), contextlib.contextmanager

    def plain(name: str) -> Iterator[str]:
        yield name
        add_properties(left=True)

    managed = feature(manage(plain)) if above else manage(feature(plain))
    assert inspect.signature(managed) == inspect.signature(plain)
    assert managed.__name__ == "plain"
    with managed("a") as name:
        assert name == "a"
        assert stats().accepted == 0
    with pytest.raises(LookupError), managed("b"):
        raise LookupError
    calls: Any = managed("c")(lambda: "called")
    assert (calls(), calls()) == ("called", "called")
    assert [(event["name"], event["left"]) for event in arrived(inspector)] == [("a", True), ("c", True), ("c", True)]


@pytest.mark.parametrize("above", [True, False])
def test_async_context_managers(above: bool, inspector: Inspector) -> None:  # noqa: FBT001
    """An async context manager counts at the end of its block, in both orders; not if the block raises."""
    feature, manage = track_feature("f", on="success"), contextlib.asynccontextmanager

    async def plain(name: str) -> AsyncIterator[str]:
        await asyncio.sleep(0)
        yield name

    managed: Any = feature(manage(plain)) if above else manage(feature(plain))

    async def main() -> None:
        async with managed("a") as name:
            assert name == "a"
            assert stats().accepted == 0
        with pytest.raises(LookupError):
            async with managed("b"):
                raise LookupError

    asyncio.run(main())
    assert features(inspector) == [("f", None)]


@pytest.mark.parametrize("decorate", [track_feature("f"), user_context("u"), suppress()])
def test_old_coroutines_keep_their_kind(decorate: Any) -> None:
    """A function of `types.coroutine` stays a generator function whose result can be awaited."""

    @types.coroutine
    def plain(value: int) -> Generator[None, None, int]:
        yield
        return value

    decorated: Any = decorate(plain)
    for judge in (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction):
        assert judge(decorated) == judge(plain)
    assert inspect.isawaitable(decorated(1))

    async def main() -> int:
        return int(await decorated(3))

    assert asyncio.run(main()) == 3


class Service:
    """Callable object whose call is a coroutine."""

    async def __call__(self) -> None:
        """Track an event."""
        await work()


def by_others(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as other libraries do: a plain function around any function."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("make", "run"),
    [
        (lambda: functools.partial(work), lambda decorated: asyncio.run(decorated())),
        (Service, lambda decorated: asyncio.run(decorated())),
        (lambda: by_others(by_others(work)), lambda decorated: asyncio.run(decorated())),
        (lambda: by_others(rows), lambda decorated: list(decorated())),
        (lambda: functools.partial(rows), lambda decorated: list(decorated())),
    ],
)
def test_kind_of_other_callables(make: Any, run: Any, inspector: Inspector) -> None:
    """Partials, callable objects and wrappers by others: blocks hold, events come at the end, the kind is unchanged."""
    for decorate in (user_context("other"), suppress(), track_feature("f"), track_feature("g", on="always")):
        decorated = decorate(make())
        for judge in (inspect.iscoroutinefunction, inspect.isgeneratorfunction, asyncio.iscoroutinefunction):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert judge(decorated) == judge(make())
        run(decorated)
    assert flush(10)
    found = [(item["event_name"], item["user_id"]) for item in inspector.items()]
    inside = ("inside", "user_1")
    assert found == [("inside", "other")] * 2 + [inside, inside, ("feature_used", "user_1")] * 2


class Unhashable(type):
    """A metaclass whose classes have no hash."""

    def __eq__(cls, other: object) -> bool:
        return cls is other

    __hash__ = None  # type: ignore[assignment]


class Value(metaclass=Unhashable):
    """Value of a class without a hash."""


@pytest.mark.parametrize("decorate", [track_feature("f"), track_feature("f", on="always"), suppress()])
def test_result_of_a_class_without_a_hash(decorate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result whose class cannot be looked up in a dict reaches the caller."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    assert type(decorate(lambda: Value())()) is Value  # noqa: PLW0108
