"""Generator functions, watched or wrapped: the same outcome whatever ends a generator, and nothing is kept."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import account_closes, arrived
from ts_autotrack import add_properties, configure, flush, stats, track_feature, user_context
from ts_autotrack._core.capture import stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")
needs_monitoring = pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="this Python wraps all functions")


def features(inspector: Inspector) -> list[str]:
    """Return the names of the arrived features."""
    return [event["feature_name"] for event in arrived(inspector)]


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (None, True),
        (GeneratorExit(), True),
        (SystemExit(0), True),
        (SystemExit(None), True),
        (SystemExit(2), False),
        (KeyboardInterrupt(), False),
        (asyncio.CancelledError(), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_block_of_a_context_manager_ends(inspector: Inspector, error: BaseException | None, *, counts: bool) -> None:
    """A tracked context manager counts unless its block fails, above or below `@contextmanager`."""

    @track_feature("above")
    @contextlib.contextmanager
    def above() -> Iterator[None]:
        yield

    @contextlib.contextmanager
    @track_feature("below")
    def below() -> Iterator[None]:
        yield

    for manager in (above, below):
        with contextlib.suppress(BaseException), manager():
            if error is not None:
                raise error
    assert features(inspector) == (["above", "below"] if counts else [])
    assert not stack.followed


def test_stream_that_exits_with_success(inspector: Inspector) -> None:
    """A generator and an async generator that end the program with exit status 0 count; with another status, not."""

    def leave(status: int) -> None:
        sys.exit(status)

    @track_feature("stream")
    def stream(status: int) -> Iterator[int]:
        yield 1
        leave(status)

    @track_feature("async_stream")
    async def async_stream(status: int) -> AsyncIterator[int]:
        yield 1
        leave(status)

    async def consume(status: int) -> None:
        with contextlib.suppress(SystemExit):
            async for _ in async_stream(status):
                pass

    for status in (0, 3):
        with contextlib.suppress(SystemExit):
            list(stream(status))
        asyncio.run(consume(status))
    assert features(inspector) == ["stream", "async_stream"]


def test_generators_in_flight_while_the_library_is_off(inspector: Inspector) -> None:
    """A generator in flight when the library is turned off counts at its end: as dropped while off, or as an event."""

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        add_properties(begun=True)
        yield 1
        yield 2

    longer, closed, exhausted = rows(), rows(), rows()
    for generator in (longer, closed, exhausted):
        next(generator)
    configure(disabled=True)
    closed.close()
    assert list(exhausted) == [2]
    assert stats().dropped == {"disabled": 2}
    configure(disabled=False, endpoint=inspector.endpoint, api_key="test")
    assert list(longer) == [2]
    assert arrived(inspector) == [{"feature_name": "rows", "action": "rows", "begun": True}]
    assert not stack.followed
    assert not stack.additions
    account_closes()


@needs_monitoring
def test_generators_begun_while_the_library_is_off_leave_nothing(inspector: Inspector) -> None:
    """A watched generator begun while the library is off makes no event: the user of its first step is not known."""

    @track_feature("rows")
    def rows(number: int = 0) -> Iterator[int]:
        yield 1
        if number % 2:
            add_properties(late=True)
        yield 2

    configure(disabled=True)
    begun = [rows(number) for number in range(10)]
    for generator in begun:
        next(generator)
    configure(disabled=False, endpoint=inspector.endpoint, api_key="test")
    for generator in begun:
        assert list(generator) == [2]
    assert features(inspector) == []
    assert not stack.followed
    assert not stack.additions


@pytest.mark.skipif(sys.platform == "emscripten", reason="addresses of frames are not used again at once")
@needs_monitoring
def test_end_that_python_does_not_report_counts_late(inspector: Inspector) -> None:
    """A generator dropped inside the callback of another tool counts once a later generator has its frame's address."""

    @track_feature("rows")
    def rows(number: int) -> Generator[int, None, None]:
        add_properties(number=number)
        yield 1

    def replace() -> None:
        _replace(generators, lambda: rows(2))

    generators: list[Any] = [rows(1)]
    with user_context("first_user"):
        next(generators[0])
    _run_unseen(replace)
    if not generators:
        pytest.skip("no frame got the address of the earlier frame")
    assert list(generators.pop()) == [1]
    assert flush(10)
    events = [(item["properties"]["number"], item["user_id"]) for item in inspector.items()]
    assert events == [(1, "first_user"), (2, "user_1")]
    assert not stack.followed
    assert not stack.additions


@needs_monitoring
def test_returned_generator_at_the_address_of_a_dropped_generator(inspector: Inspector) -> None:
    """A call that returns a generator keeps its own user if a dropped generator had the same address."""

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        yield 1

    @track_feature("page")
    def page() -> Any:
        return generators.pop()

    def replace() -> None:
        _replace(generators, rows)

    generators: list[Any] = [rows()]
    with user_context("first_user"):
        next(generators[0])
    _run_unseen(replace)
    if not generators:
        pytest.skip("no frame got the address of the earlier frame")
    assert list(page()) == [1]
    assert flush(10)
    events = [(item["properties"]["feature_name"], item["user_id"]) for item in inspector.items()]
    assert events == [("rows", "first_user"), ("rows", "user_1"), ("page", "user_1")]
    assert not stack.followed


def _replace(generators: list[Any], make: Callable[[], Any]) -> None:
    """Replace the only generator in a list by a generator whose frame has the address of the earlier frame."""
    address = id(generators[0].gi_frame)
    generators.clear()
    for _ in range(1_000):
        generators.append(make())
        if id(generators[-1].gi_frame) == address:
            del generators[:-1]
            return
    generators.clear()


def _run_unseen(action: Callable[[], None]) -> None:
    """Run an action inside the callback of another tool, where Python reports no events."""
    monitoring: Any = getattr(sys, "monitoring", None)
    tool = next(number for number in range(6) if monitoring.get_tool(number) is None)

    def place() -> None:
        pass

    monitoring.use_tool_id(tool, "another tool")
    monitoring.register_callback(tool, monitoring.events.PY_START, lambda *_: action())
    monitoring.set_local_events(tool, place.__code__, monitoring.events.PY_START)
    place()
    monitoring.set_local_events(tool, place.__code__, 0)
    monitoring.register_callback(tool, monitoring.events.PY_START, None)
    monitoring.free_tool_id(tool)


@pytest.mark.usefixtures("inspector")
def test_garbage_generators_collected_at_the_begin_of_another_count() -> None:
    """Generators that the garbage collector closes while the beginning of another generator is noted are counted."""

    @track_feature("rows")
    def rows() -> Iterator[int]:
        yield 1

    class Holder:
        itself: Any
        generator: Any

    gc.collect()
    before, count = account_closes().accepted, 0
    gc.disable()
    try:
        for _ in range(50):
            for _ in range(20):
                holder = Holder()
                holder.itself, holder.generator = holder, rows()
                next(holder.generator)
            del holder
            trigger = rows()
            thresholds = gc.get_threshold()
            count += 21
            gc.enable()
            gc.set_threshold(1)
            next(trigger)
            gc.disable()
            gc.set_threshold(*thresholds)
            trigger = None  # type: ignore[assignment]
        gc.collect()
    finally:
        gc.enable()
    assert account_closes().accepted == before + count


@pytest.mark.usefixtures("inspector")
def test_garbage_generators_count_beside_calls_that_fill_the_memory() -> None:
    """Generators in cycles are counted if the records of other tracked calls make the garbage collector run."""

    @track_feature("rows")
    def rows() -> Iterator[int]:
        yield 1

    @track_feature("call")
    def call() -> None:
        pass

    gc.collect()
    before = account_closes().accepted
    for _ in range(500):
        cycle: list[Any] = [rows()]
        next(cycle[0])
        cycle.append(cycle)
        for _ in range(40):
            call()
    del cycle
    gc.collect()
    counted = account_closes().accepted - before - 500 * 40
    assert counted + len(stack.followed) == 500
    assert counted > 450
    stack.followed.clear()


@pytest.mark.parametrize("end", ["exhausted", "closed", "dropped", "failed", "thrown"])
@pytest.mark.usefixtures("inspector")
def test_generators_that_have_ended_are_not_kept(end: str) -> None:
    """No end of a generator leaves an entry in the library's registries."""

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        add_properties(a=1)
        yield 1
        if end == "failed":
            raise ValueError

    for _ in range(2_000):
        generator = rows()
        next(generator)
        with contextlib.suppress(ValueError):
            if end == "closed":
                generator.close()
            elif end == "thrown":
                generator.throw(ValueError())
            elif end in {"exhausted", "failed"}:
                assert list(generator) == []
    del generator
    assert not stack.followed
    assert not stack.additions
