"""Watched functions in hostile conditions: calls whose end is not seen, races, other tools, signals, odd functions."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import DEADLINE, run_python
from tests.core.conftest import account_closes, arrived
from ts_autotrack import add_properties, configure, flush, stats, track_feature, user_context
from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture import stack, watching
from ts_autotrack._core.capture.monitor import monitor
from ts_autotrack._core.capture.record import watched_templates

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")
needs_monitoring = pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="this Python wraps all functions")


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let Python switch threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_properties_added_while_off_reach_no_later_call(inspector: Inspector) -> None:
    """A call that adds properties while the library is off leaves none for a call after the library is on again."""

    @track_feature("while_off")
    def while_off() -> None:
        add_properties(secret=1)

    @track_feature("later")
    def later() -> None:
        pass

    while_off()
    configure(disabled=True)
    for _ in range(20):
        while_off()
    configure(disabled=False, endpoint=inspector.endpoint)
    for _ in range(20):
        later()
    assert {event.get("secret") for event in arrived(inspector) if event["feature_name"] == "later"} == {None}


@needs_monitoring
def test_a_call_whose_end_is_not_seen_gives_its_properties_to_no_other_call(inspector: Inspector) -> None:
    """Python reports no return inside a trace function; later calls of the same function have their properties only."""

    @track_feature("traced")
    def traced(secret: int) -> None:
        if secret:
            add_properties(secret=secret)

    def trace(*_: object) -> None:
        traced(1)

    def probe() -> None:
        pass

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        probe()
    finally:
        sys.settrace(before)
    for _ in range(50):
        traced(0)
    assert all("secret" not in event for event in arrived(inspector))


def numbers(name: str) -> Generator[int]:
    """Yield two numbers and attach a property to the call in flight."""
    add_properties(given=name)
    yield 1
    yield 2


@pytest.mark.parametrize("end", ["exhausted", "closed", "dropped"])
def test_a_returned_generator_keeps_its_properties(inspector: Inspector, end: str) -> None:
    """Properties added inside a returned generator belong to the call that returned it, whatever ends the generator."""

    @track_feature("stream")
    def stream() -> Generator[int]:
        return numbers(end)

    @track_feature("other")
    def other() -> None:
        pass

    generator = stream()
    next(generator)
    if end == "exhausted":
        assert list(generator) == [2]
    elif end == "closed":
        generator.close()
    del generator
    gc.collect()
    for _ in range(20):
        other()
    found = {(event["feature_name"], event.get("given")) for event in arrived(inspector)}
    assert found == {("stream", end), ("other", None)}
    assert not stack.additions
    assert not stack.followed


@pytest.mark.usefixtures("eager_threads", "inspector")
def test_returned_generators_of_many_threads_are_all_counted() -> None:
    """Threads that finish generators with the same code at the same time lose no event."""

    def one() -> Generator[int]:
        yield 1

    @track_feature("stream")
    def stream() -> Generator[int]:
        return one()

    def run() -> None:
        with user_context("user_1", group_id="account_1"):
            for _ in range(3000):
                assert list(stream()) == [1]

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stats().accepted == 12_000
    assert not stats().dropped.get("fault")


@needs_monitoring
@pytest.mark.usefixtures("inspector")
def test_a_generator_returned_again_and_again_is_followed_once() -> None:
    """A function that returns the same generator from each call makes an event for each call and keeps nothing more."""

    def endless() -> Generator[int]:
        while True:
            yield 1

    shared = [endless()]

    @track_feature("reader")
    def reader() -> Generator[int]:
        return shared[0]

    for _ in range(200):
        next(reader())
    assert sum(len(work.calls) for work in stack.followed.values()) <= 1
    shared.clear()
    gc.collect()
    assert account_closes().accepted == 200
    assert not stack.followed


@needs_monitoring
@pytest.mark.usefixtures("inspector")
def test_functions_made_again_and_again_leave_nothing() -> None:
    """No code object, template or registration outlives a function, whatever becomes of the work that it returned."""

    def sizes() -> tuple[int, ...]:
        gc.collect()
        registries: tuple[Any, ...] = (
            watched_templates,
            watching._rules,
            stack.watched_codes,
            stack.followed,
            stack.additions,
            monitor._codes,
            monitor.works,
        )
        return tuple(map(len, registries))

    def work(*, fail: bool) -> Generator[int]:
        add_properties(given=1)
        yield 1
        if fail:
            raise FileNotFoundError

    def make(end: int) -> None:
        @track_feature("made")
        def made(*, fail: bool) -> Generator[int]:
            return work(fail=fail)

        @track_feature("coroutine")
        async def coroutine() -> None:
            add_properties(given=2)

        generator = made(fail=end == 2)
        if end:
            next(generator)
        if end == 2:
            with pytest.raises(FileNotFoundError):
                next(generator)
        coroutine().close()
        finished = coroutine()
        with pytest.raises(StopIteration):
            finished.send(None)

    make(1)
    before = sizes()
    for number in range(300):
        make(number % 3)
    assert sizes()[:5] == before[:5]
    assert sizes()[5] <= before[5] + 1


@needs_monitoring
def test_other_tools_neither_hide_nor_double_calls() -> None:
    """A call is one event beside a tool that returns DISABLE, and after a tool has taken the library's id."""
    program = """
import sys
from ts_autotrack import stats, track_feature, user_context

monitoring, returns = sys.monitoring, sys.monitoring.events.PY_RETURN

def accepted():
    before = stats().accepted
    with user_context("user_1", group_id="account_1"):
        tracked()
    return stats().accepted - before

@track_feature("tracked")
def tracked():
    pass

monitoring.use_tool_id(2, "other")
monitoring.register_callback(2, returns, lambda *_: monitoring.DISABLE)
monitoring.set_events(2, returns)
assert [accepted(), accepted()] == [1, 1]
monitoring.set_local_events(2, tracked.__code__, returns)
monitoring.set_local_events(2, tracked.__code__, 0)
assert accepted() == 1
monitoring.free_tool_id(4)
monitoring.use_tool_id(4, "thief")

@track_feature("another")
def another():
    pass

assert [accepted(), accepted()] == [1, 1]
"""
    done = run_python(program, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_JSONL_PATH="/dev/null")
    assert done.returncode == 0, done.stderr


def test_greenlets_lose_no_call_while_the_worker_starts() -> None:
    """The first event starts the worker, which switches greenlets: the calls of the other greenlets count, too."""
    pytest.importorskip("gevent")
    program = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
from ts_autotrack import flush, stats, track_feature, user_context

@track_feature("tracked")
def tracked():
    pass

def run(number):
    with user_context(f"user_{number}", group_id="account_1"):
        for _ in range(10):
            tracked()
            gevent.sleep(0)

gevent.joinall([gevent.spawn(run, number) for number in range(30)])
assert flush(20)
assert stats().accepted == 300, stats()
"""
    done = run_python(program, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_JSONL_PATH="/dev/null")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("eager_threads", "inspector")
def test_no_function_stays_deaf_after_the_library_is_on_again() -> None:
    """Calls on other threads while the library is turned off and on leave each function tracked."""

    def make(name: str) -> Callable[[], None]:
        @track_feature(name)
        def function() -> None:
            pass

        return function

    functions = [make(f"feature_{number}") for number in range(5)]
    done = threading.Event()

    def run() -> None:
        with user_context("user_1", group_id="account_1"):
            while not done.is_set():
                for function in functions:
                    function()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        configure(disabled=True)
        configure(disabled=False)
    done.set()
    for thread in threads:
        thread.join()
    assert flush(60)
    before = stats().delivered
    for function in functions:
        function()
    assert flush(60)
    assert stats().delivered - before == 5


@pytest.mark.skipif(sys.platform == "emscripten", reason="no timer sends a signal")
@pytest.mark.usefixtures("inspector")
def test_an_error_of_a_signal_handler_reaches_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that strikes while the library records a call ends the work all the same."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    raised = []

    class LimitError(Exception):
        """The application's error."""

    def limit(_: int, frame: Any) -> None:
        # Only there: Python prints and forgets an exception in a finalizer, which may run on top of any frame.
        if "ts_autotrack/_core/capture" in frame.f_code.co_filename or frame.f_code.co_filename == stack.FILENAME:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raised.append(frame)
            raise LimitError

    @track_feature("limited")
    def limited() -> None:
        pass

    limited()
    assert flush(10)  # the worker has started: an error in `Thread.start` breaks the thread
    before = signal.signal(signal.SIGALRM, limit)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    deadline = time.monotonic() + DEADLINE

    def work() -> None:
        while not raised and time.monotonic() < deadline:
            limited()

    try:
        with pytest.raises(LimitError):
            work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Hostile:
    """An object whose attributes cannot be read."""

    def __getattr__(self, name: str) -> Any:
        raise ValueError(name)


@pytest.mark.parametrize("module", [None, [], 5, "odd_module"])
def test_a_function_with_an_odd_module_is_decorated(
    monkeypatch: pytest.MonkeyPatch, inspector: Inspector, module: Any
) -> None:
    """The module of a function, and what lies in it under the function's name, may be anything."""
    odd: Any = ModuleType("odd_module")
    odd.outer = SimpleNamespace(function=Hostile())
    monkeypatch.setitem(sys.modules, "odd_module", odd)

    def function() -> int:
        return 1

    function.__module__, function.__qualname__ = module, "outer.function"
    function.__dict__[5] = "a key that is no text"  # type: ignore[index]
    tracked = track_feature("odd")(function)
    assert tracked() == 1
    assert [event["feature_name"] for event in arrived(inspector)] == ["odd"]
