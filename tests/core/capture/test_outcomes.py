"""Outcomes: clean exits, closed and cancelled streams, and generators that behave as undecorated."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import sys
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.conftest import account_closes, arrived
from ts_autotrack import clear_user, flush, suppress, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")

typer: Any = importlib.import_module("typer") if importlib.util.find_spec("typer") else click.exceptions
CLEAN: list[Callable[[], BaseException]] = [
    lambda: SystemExit(0),
    SystemExit,
    lambda: SystemExit(None),
    lambda: SystemExit(False),
    lambda: click.exceptions.Exit(0),
    lambda: typer.Exit(0),
]
FAILED: list[Callable[[], BaseException]] = [
    lambda: SystemExit(1),
    lambda: SystemExit("text"),
    lambda: SystemExit(0.0),
    lambda: click.exceptions.Exit(1),
    lambda: typer.Exit(2),
    click.Abort,
    KeyboardInterrupt,
]


def outcomes(inspector: Inspector) -> list[str | None]:
    """Return the outcomes of the arrived events."""
    return [event.get("outcome") for event in arrived(inspector)]


@pytest.mark.parametrize(("make", "is_clean"), [(make, True) for make in CLEAN] + [(make, False) for make in FAILED])
def test_exits(make: Callable[[], BaseException], is_clean: bool, inspector: Inspector) -> None:  # noqa: FBT001
    """A call that ends with exit status 0 is a success; any other exit is a failure."""
    end = SimpleNamespace(Exit=make)

    for on in ("success", "error", "always"):
        decorate: Any = track_feature("f", on=on)

        def function() -> None:
            error = end.Exit()
            raise error

        async def coroutine() -> None:
            error = end.Exit()
            raise error

        def rows() -> Iterator[None]:
            yield
            error = end.Exit()
            raise error

        calls: list[Callable[[], object]] = [
            decorate(function),
            lambda d=decorate, c=coroutine: d(c)().send(None),  # type: ignore[misc]
            lambda d=decorate, r=rows: list(d(r)()),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(BaseException) as caught:  # noqa: PT011
                call()
            assert type(caught.value) is type(make())
    assert outcomes(inspector) == [None] * 3 + ["success" if is_clean else "error"] * 3


def test_commands_that_exit(inspector: Inspector) -> None:
    """A function that calls `sys.exit()`, or a click command that leaves by its context, has succeeded."""

    @track_feature("leave")
    def leave(code: object = None) -> None:
        sys.exit(code)  # type: ignore[arg-type]

    @click.command()
    @click.pass_context
    @track_feature("command")
    def command(context: click.Context) -> None:
        context.exit()

    for code in (None, 0, 1, "text"):
        with pytest.raises(SystemExit):
            leave(code)
    assert command.main([], standalone_mode=False) == 0
    assert [event["feature_name"] for event in arrived(inspector)] == ["leave", "leave", "command"]


async def slow_stream(step: int, reached: asyncio.Event) -> AsyncGenerator[int, None]:
    """Yield numbers, and wait for ever before the given step."""
    for number in range(3):
        if number == step:
            reached.set()
            await asyncio.Event().wait()
        yield number


@pytest.mark.parametrize("on", ["success", "error", "always"])
@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("returned", [True, False])
def test_cancelled_streams(on: Any, step: int, returned: bool, inspector: Inspector) -> None:  # noqa: FBT001
    """A stream whose task is cancelled while the generator waits was used if it had yielded an item, else it failed."""
    make = (lambda *args: slow_stream(*args)) if returned else slow_stream  # noqa: PLW0108
    decorated: Any = track_feature("f", on=on)(make)

    async def main() -> None:
        reached = asyncio.Event()

        async def consume() -> None:
            async for _ in decorated(step, reached):
                pass

        task = asyncio.create_task(consume())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    expected: dict[str, list[Any]] = {
        "success": [None] * step,
        "error": [None] * (1 - step),
        "always": ["success" if step else "error"],
    }
    assert outcomes(inspector) == expected[on]
    assert account_closes().accepted == len(expected[on])


@pytest.mark.parametrize("on", ["success", "error", "always"])
@pytest.mark.parametrize("step", [0, 1])
def test_streams_cancelled_by_trio(on: Any, step: int, inspector: Inspector) -> None:
    """Trio's cancellation counts as asyncio's: used if an item had come, else failed."""
    trio = pytest.importorskip("trio")

    @track_feature("f", on=on)
    async def stream() -> AsyncGenerator[int, None]:
        for number in range(3):
            if number == step:
                await trio.sleep_forever()
            yield number

    async def main() -> None:
        with trio.move_on_after(0.05):
            async with contextlib.aclosing(stream()) as items:
                async for _ in items:
                    pass

    trio.run(main)
    expected: dict[str, list[Any]] = {
        "success": [None] * step,
        "error": [None] * (1 - step),
        "always": ["success" if step else "error"],
    }
    assert outcomes(inspector) == expected[on]


@pytest.mark.parametrize("on", ["success", "error", "always"])
def test_closed_streams(on: Any, inspector: Inspector) -> None:
    """A stream that its consumer closes was used once it has yielded; one never begun makes no event."""
    decorated = track_feature("f", on=on)(slow_stream)

    async def main() -> None:
        async with contextlib.aclosing(decorated(3, asyncio.Event())) as items:
            await anext(items)
        await decorated(3, asyncio.Event()).aclose()

    asyncio.run(main())
    assert outcomes(inspector) == {"success": [None], "error": [], "always": ["success"]}[on]


@pytest.mark.parametrize("on", ["success", "error", "always"])
@pytest.mark.parametrize("step", [0, 1])
def test_streams_of_destroyed_tasks(on: Any, step: int, inspector: Inspector) -> None:
    """A stream in a task that is destroyed while it waits never makes two events, and none of another user."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        reached = asyncio.Event()

        async def consume() -> None:
            async for _ in track_feature("f", on=on)(slow_stream)(step, reached):
                pass

        with user_context("first"):
            task = asyncio.create_task(consume())
        await reached.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        gc.collect()
        with user_context("second"):
            del task
            reached = None  # type: ignore[assignment]
            gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert flush(10)
    items = inspector.items()
    assert len(items) <= 1
    assert {item["user_id"] for item in items} <= {"first"}
    assert account_closes().accepted == len(items)


@pytest.mark.parametrize("on", ["error", "always"])
@pytest.mark.parametrize("returned", [True, False])
def test_destroyed_task_is_the_first_users(on: Any, returned: bool, inspector: Inspector) -> None:  # noqa: FBT001
    """The failure of a task destroyed in another user's context belongs to the user of the task."""

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        decorated: Any = track_feature("f", on=on)((lambda: work()) if returned else work)  # noqa: PLW0108
        with user_context("first"):
            task = asyncio.create_task(decorated())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with user_context("second"):
            del task
            gc.collect()

    asyncio.run(main())
    assert flush(10)
    assert [item["user_id"] for item in inspector.items()] == ["first"]


@pytest.mark.parametrize("end", ["close", "collect", "exhaust"])
def test_generators_that_end_elsewhere(end: str, inspector: Inspector) -> None:
    """A generator is its first user's, wherever it is closed, collected or read to its end."""

    def rows() -> Generator[int, None, None]:
        yield 1
        yield 2

    def others() -> Generator[int, None, None]:
        yield from [1, 2]

    decorate = track_feature("f")
    for make in (decorate(rows), decorate(lambda: others())):  # noqa: PLW0108
        with user_context("first"):
            running = make()
            next(running)
        with user_context("second"):
            if end == "close":
                running.close()
            elif end == "exhaust":
                list(running)
            del running
            gc.collect()
    assert flush(10)
    assert [item["user_id"] for item in inspector.items()] == ["first", "first"]


def test_generator_of_nobody(inspector: Inspector) -> None:
    """A generator begun without a user is nobody's, also if it is collected while a user acts."""
    clear_user()
    running = track_feature("f")(body)("raise")
    next(running)
    with user_context("second"):
        del running
        gc.collect()
    assert arrived(inspector) == []
    assert account_closes().dropped == {"unattributed": 1}


def test_async_generators_that_end_elsewhere(inspector: Inspector) -> None:
    """An async generator is its first user's, wherever it is closed or collected."""

    @track_feature("f")
    async def stream() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    async def main() -> None:
        for close in (True, False):
            with user_context("first"):
                running = stream()
                await anext(running)
            with user_context("second"):
                if close:
                    await running.aclose()
                del running
                gc.collect()
                for _ in range(3):
                    await asyncio.sleep(0)

    asyncio.run(main())
    assert flush(10)
    assert [item["user_id"] for item in inspector.items()] == ["first", "first"]


# -- as undecorated -------------------------------------------------------------------------------------------------

THROWN = [KeyError, IndexError, GeneratorExit, StopIteration, StopAsyncIteration, RuntimeError, KeyboardInterrupt]
ON_EXIT = ["raise", "return", "yield", "other"]


def obey(told: object, stop: type[Exception]) -> None:
    """Raise an error for the sent value "raise", and `stop` for the sent value "stop"."""
    if told == "raise":
        raise LookupError
    if told == "stop":
        raise stop


def body(on_exit: str) -> Generator[Any, Any, Any]:
    """Return or raise as the sent values say; yield a number and the class of the exception being handled."""
    number = 0
    while True:
        number += 1
        try:
            told = yield number, sys.exc_info()[0]
        except KeyError:
            told = None
        except IndexError:
            told = yield "in a handler", sys.exc_info()[0]
        except GeneratorExit:
            if on_exit == "return":
                return "closed"
            if on_exit == "yield":
                on_exit = "raise"
                told = yield "ignored"
            elif on_exit == "other":
                raise LookupError from None
            else:
                raise
        if told == "return":
            return number
        obey(told, StopIteration)


async def async_body(on_exit: str) -> AsyncGenerator[Any, Any]:
    """Do the same as an async generator."""
    number = 0
    while True:
        number += 1
        try:
            told = yield number, sys.exc_info()[0]
        except KeyError:
            told = None
        except IndexError:
            told = yield "in a handler", sys.exc_info()[0]
        except GeneratorExit:
            if on_exit == "return":
                return
            if on_exit == "yield":
                on_exit = "raise"
                told = yield "ignored"
            elif on_exit == "other":
                raise LookupError from None
            else:
                raise
        if told == "return":
            return
        obey(told, StopAsyncIteration)


STEPS = st.lists(
    st.tuples(st.just("send"), st.sampled_from([None, "x", "return", "raise", "stop"]))
    | st.tuples(st.just("throw"), st.sampled_from(THROWN))
    | st.just(("close", None)),
    min_size=1,
    max_size=6,
)


def described(error: BaseException | None) -> object:
    """Return all that a program sees of an exception."""
    if error is None:
        return None
    value = getattr(error, "value", None)
    return type(error), str(error), value, described(error.__cause__), described(error.__context__)


def trace(generator: Any, steps: list[tuple[str, Any]]) -> list[object]:
    """Return the results of the steps."""
    found: list[object] = []
    for name, argument in steps:
        try:
            if name == "close":
                found.append(generator.close())
            else:
                found.append(getattr(generator, name)(argument))
        except BaseException as error:  # noqa: BLE001, PERF203
            found.append(described(error))
    for _ in range(3):
        with contextlib.suppress(BaseException):
            generator.close()
    return found


async def async_trace(generator: Any, steps: list[tuple[str, Any]]) -> list[object]:
    """Return the results of the steps of an async generator."""
    found: list[object] = []
    for name, argument in steps:
        try:
            if name == "close":
                found.append(await generator.aclose())
            else:
                found.append(await getattr(generator, "a" + name)(argument))
        except BaseException as error:  # noqa: BLE001, PERF203
            found.append(described(error))
    for _ in range(3):
        with contextlib.suppress(BaseException):
            await generator.aclose()
    return found


DECORATORS: list[Callable[[Any], Any]] = [
    track_feature("f"),
    track_feature("f", on="always", properties=lambda _: {}),
    user_context("u"),
    suppress(),
    lambda function: track_feature("f", on="error")(lambda *args: function(*args)),  # noqa: PLW0108
    lambda function: user_context("u")(lambda *args: function(*args)),  # noqa: PLW0108
]


@settings(deadline=None)
@given(st.sampled_from(ON_EXIT), STEPS)
def test_any_sequence_of_steps(on_exit: str, steps: list[tuple[str, Any]]) -> None:
    """Any sequence of send, throw and close gives the results, exceptions and contexts of the undecorated generator."""
    steps = [("send", None), *steps]
    expected = trace(body(on_exit), steps)
    for decorate in DECORATORS:
        assert trace(decorate(body)(on_exit), steps) == expected


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(ON_EXIT), STEPS)
def test_any_sequence_of_async_steps(on_exit: str, steps: list[tuple[str, Any]]) -> None:
    """Any sequence of asend, athrow and aclose gives the results of the undecorated async generator."""
    steps = [("send", None), *steps]

    async def main() -> None:
        expected = await async_trace(async_body(on_exit), steps)
        for decorate in DECORATORS:
            assert await async_trace(decorate(async_body)(on_exit), steps) == expected

    asyncio.run(main())


def test_suspended_generators_keep_no_items() -> None:
    """Objects that a suspended generator has yielded, or was sent, are not kept alive."""

    class Item:
        """An object for weak references."""

    def rows() -> Generator[Item, Item | None, None]:
        while True:
            yield Item()

    async def stream() -> AsyncGenerator[Item, Item | None]:
        while True:
            yield Item()

    async def watch_stream(running: Any) -> list[object]:
        first = weakref.ref(await anext(running))
        sent = Item()
        watched = weakref.ref(sent)
        second = weakref.ref(await running.asend(sent))
        del sent
        found = [first(), watched(), second()]
        await running.aclose()
        return found

    for decorate in DECORATORS:
        running = decorate(rows)()
        first = weakref.ref(next(running))
        sent = Item()
        watched = weakref.ref(sent)
        second = weakref.ref(running.send(sent))
        del sent
        assert [first(), watched(), second()] == [None] * 3
        running.close()
        assert asyncio.run(watch_stream(decorate(stream)())) == [None] * 3
