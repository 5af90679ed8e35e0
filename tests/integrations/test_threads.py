"""Threads and executors that carry the acting user."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest
import wrapt

from tests.conftest import DEADLINE, run_python
from ts_autotrack import bind_user, current_user, flush, request_scope, stats, suppress, track, user_context
from ts_autotrack.integrations.threads import instrument_threads, uninstrument_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

ORIGINALS = ThreadPoolExecutor.__dict__["submit"], threading.Thread.__dict__["start"]


def methods() -> tuple[object, object]:
    """Return the methods that are patched."""
    return ThreadPoolExecutor.__dict__["submit"], threading.Thread.__dict__["start"]


@pytest.fixture(autouse=True)
def instrumented() -> Iterator[None]:
    """Patch, and undo."""
    instrument_threads()
    yield
    uninstrument_threads()
    assert methods() == ORIGINALS


def who() -> str | None:
    """Return the acting user."""
    return current_user().user_id


def in_thread(function: Callable[[], Any], kind: Callable[..., threading.Thread] = threading.Thread) -> Any:
    """Return the result of a function called in a new thread."""
    found: list[Any] = []
    thread = kind(target=lambda: found.append(function()))
    thread.start()
    thread.join(DEADLINE)
    return found[0]


def test_thread_that_only_tracks_has_the_user_of_its_start(inspector: Inspector) -> None:
    """A thread whose target is `track` itself is a thread of the application."""
    with user_context("user_1"):
        thread = threading.Thread(target=track, args=("work",))
        thread.start()
        thread.join(DEADLINE)
    assert flush()
    assert [item["user_id"] for item in inspector.items()] == ["user_1"]


def test_each_task_of_a_pool_has_the_user_of_its_submit(inspector: Inspector) -> None:
    """Tasks on one reused thread are credited to the users who submitted them, in full; nothing stays on the thread."""
    with ThreadPoolExecutor(1) as pool:
        for number in range(5):
            with user_context(f"u{number}", group_id=f"g{number}", plan=f"p{number}"):
                pool.submit(track, "task")
            pool.submit(track, "nobody")
    assert flush(DEADLINE)
    assert [
        (item["user_id"], item["context"]["group_id"], item["properties"]["plan"]) for item in inspector.items()
    ] == [(f"u{number}", f"g{number}", f"p{number}") for number in range(5)]
    assert stats().dropped == {"unattributed": 5}


def test_nothing_of_a_task_is_seen_by_the_next_task() -> None:
    """`bind_user` inside a task holds for this task: neither the next task nor the submitting code sees it."""

    def bind() -> str | None:
        bind_user("bound", group_id="g")
        return who()

    with ThreadPoolExecutor(1) as pool:
        with user_context("u"):
            assert pool.submit(bind).result(DEADLINE) == "bound"
            assert pool.submit(who).result(DEADLINE) == "u"
            assert who() == "u"
        assert pool.submit(bind).result(DEADLINE) == "bound"
        assert pool.submit(who).result(DEADLINE) is None


def test_the_pool_s_own_threads_have_nobody() -> None:
    """The user who submits the first task is not the user of the thread that the pool starts for it."""
    seen: list[str | None] = []
    with user_context("first"), ThreadPoolExecutor(1, initializer=lambda: seen.append(who())) as pool:
        assert pool.submit(who).result(DEADLINE) == "first"
        uninstrument_threads()
        assert pool.submit(who).result(DEADLINE) is None
    assert seen == [None]


def test_other_pools_have_nobody() -> None:
    """A thread that a pool starts inside somebody's request serves others later: it has no user."""
    with user_context("first"), ThreadPool(1) as pool:
        assert pool.apply(who) is None

    async def main() -> list[str | None]:
        with user_context("first"):
            first = await anyio.to_thread.run_sync(who)
        return [first, await anyio.to_thread.run_sync(who)]

    assert asyncio.run(main()) == ["first", None]


def test_map_and_event_loops() -> None:
    """`Executor.map`, `loop.run_in_executor` and `asyncio.to_thread` carry the user, too."""

    async def main() -> list[str | None]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            work = [loop.run_in_executor(pool, who), loop.run_in_executor(None, who), asyncio.to_thread(who)]
            return list(await asyncio.gather(*work))

    with user_context("u"):
        assert asyncio.run(main()) == ["u"] * 3
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(lambda _: who(), range(5))) == ["u"] * 5


def test_threads_have_the_user_of_their_start() -> None:
    """Threads, timers and subclasses with a `run` of their own work for the user acting at `start()`."""
    seen: list[str | None] = []

    class Own(threading.Thread):
        def run(self) -> None:
            seen.append(who())

    thread, timer = Own(), threading.Timer(0, lambda: seen.append(who()))
    with user_context("u"):
        thread.start()
        timer.start()
        assert in_thread(who) == "u"
        assert in_thread(lambda: in_thread(who)) == "u"
    with user_context("other"):
        thread.join(DEADLINE)
        timer.join(DEADLINE)
    assert seen == ["u", "u"]
    assert in_thread(who) is None


@pytest.mark.usefixtures("inspector")
def test_threads_inside_a_request() -> None:
    """Work of a request sees the user that the request learns later; suppression is carried, too."""
    release = threading.Event()

    def wait() -> str | None:
        release.wait(DEADLINE)
        return who()

    with ThreadPoolExecutor(1) as pool, request_scope():
        task = pool.submit(wait)
        bind_user("late")
        release.set()
        assert task.result(DEADLINE) == "late"
        with suppress():
            in_thread(partial(track, "e"))
    assert stats().dropped.get("suppressed") == 1


def test_results_and_exceptions_are_unchanged() -> None:
    """A task returns the very object that its function returned, and raises the very error; any callable will do."""
    error, result = LookupError("mine"), object()

    def generate() -> Iterator[int]:
        yield 1

    async def work() -> int:
        return 1

    def fail() -> None:
        raise error

    with ThreadPoolExecutor(1) as pool, user_context("u"):
        assert pool.submit(lambda: result).result(DEADLINE) is result
        assert pool.submit(fail).exception(DEADLINE) is error
        assert pool.submit(int, "7", base=8).result(DEADLINE) == 7
        assert pool.submit(partial(int, "7")).result(DEADLINE) == 7
        generator: Any = pool.submit(generate).result(DEADLINE)
        assert generator.gi_code is generate.__code__
        coroutine: Any = pool.submit(work).result(DEADLINE)
        assert coroutine.cr_code is work.__code__
        coroutine.close()
        assert isinstance(pool.submit(5).exception(DEADLINE), TypeError)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="submit"):
            pool.submit()  # type: ignore[call-arg]


def test_errors_of_threads_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a thread reaches `threading.excepthook`; a thread that cannot start says so as ever."""
    seen: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda arguments: seen.append(arguments.exc_value))
    error = LookupError("mine")

    def fail() -> None:
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join(DEADLINE)
    assert seen == [error]
    with pytest.raises(RuntimeError, match="once"):
        thread.start()
    with pytest.raises(RuntimeError, match="__init__"):
        threading.Thread.__new__(threading.Thread).start()

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError

    unstarted = threading.Thread(target=fail)
    name = "_start_joinable_thread" if hasattr(threading, "_start_joinable_thread") else "_start_new_thread"
    with monkeypatch.context() as patch:
        patch.setattr(threading, name, refuse)
        with pytest.raises(RuntimeError):
            unstarted.start()
    assert "run" not in vars(unstarted)


def test_a_thread_keeps_its_own_run_and_is_freed() -> None:
    """A `run` set on the instance is called and stays; an ended thread is freed without the garbage collector."""
    seen: list[str | None] = []
    thread = threading.Thread()
    thread.run = lambda: seen.append(who())  # type: ignore[method-assign]
    own = thread.run
    with user_context("u"):
        thread.start()
    thread.join(DEADLINE)
    assert (seen, thread.run) == (["u"], own)

    plain = threading.Thread(target=who)
    with user_context("u"):
        plain.start()
    plain.join(DEADLINE)
    assert "run" not in vars(plain)
    reference = weakref.ref(plain)
    gc.disable()
    try:
        del plain
        assert reference() is None
    finally:
        gc.enable()


def test_patching_twice_changes_nothing_and_undoing_restores() -> None:
    """Both calls may be repeated; afterwards the methods are Python's own."""
    patched = methods()
    instrument_threads()
    assert methods() == patched
    with user_context("u"):
        assert in_thread(who) == "u"
    uninstrument_threads()
    uninstrument_threads()
    assert methods() == ORIGINALS
    with user_context("u"):
        assert in_thread(who) is None


def test_the_patch_of_another_tool_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that patched the same method later keeps its patch; undone below it, ours does nothing."""
    calls: list[str] = []

    def other(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
        calls.append("other")
        return wrapped(*args, **kwargs)

    with monkeypatch.context() as patch:
        mine = threading.Thread.__dict__["start"]
        patch.setattr(threading.Thread, "start", wrapt.FunctionWrapper(mine, other))
        with user_context("u"):
            assert in_thread(who) == "u"
            uninstrument_threads()
            assert in_thread(who) is None
            assert calls == ["other"] * 2
    monkeypatch.setattr(threading.Thread, "start", ORIGINALS[1])


PROGRAM = """
import threading
from ts_autotrack import configure, flush, stats, track, user_context
from ts_autotrack.integrations.threads import instrument_threads
instrument_threads()
started = []
start = threading.Thread.start
def note(thread):
    start(thread)
    started.append((thread.name, "run" in vars(thread)))
threading.Thread.start = note
with user_context("u"):
    track("e")
flush(10)
print(started)
"""


def test_the_library_s_own_thread_has_nobody() -> None:
    """The background thread, started by somebody's first event, is left alone."""
    done = run_python(PROGRAM, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_JSONL_PATH="/dev/null")
    assert done.stdout == "[('ts_autotrack', False)]\n", done.stderr
