"""track_feature captures calls of decorated callables, and changes nothing a program can see."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import functools
import gc
import inspect
import pickle
import sys
import traceback
import types
import weakref
from contextlib import ExitStack, aclosing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import wrapt

from tests.conftest import run_python
from ts_autotrack import (
    add_properties,
    bind_user,
    flush,
    group,
    identify,
    stats,
    suppress,
    track,
    track_feature,
    user_context,
)
from ts_autotrack._core import diagnostics
from ts_autotrack.typing import FinishedCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from tests.conftest import Inspector


@pytest.fixture(autouse=True)
def acting() -> Iterator[None]:
    """A user acts in each of these tests."""
    with user_context("user_1", group_id="account_1"):
        yield


def arrived(inspector: Inspector) -> list[dict[str, Any]]:
    """Return the properties of the arrived events."""
    assert flush(10)
    return [item["properties"] for item in inspector.items()]


def frames_of_ours(error: BaseException) -> list[str]:
    """Return the library's lines in a traceback. Python 3.10 re-raises a saved exception, and keeps a line for each
    decorator.
    """
    names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = [name for name in names if "ts_autotrack/_" in name]
    return ours if sys.version_info >= (3, 11) else ours[2:]


@track_feature("module_level", capture=["value"])
def module_level(value: int = 1) -> int:
    """Return the value."""
    return value


module_partial = track_feature("partial")(functools.partial(module_level, 3))


class Shop:
    """Methods of every kind, decorated in either order."""

    @track_feature("plain", capture=["amount"])
    def plain(self, amount: int) -> int:
        """Return the amount."""
        return amount

    @track_feature("class_outside", capture=["amount"])
    @classmethod
    def class_outside(cls, amount: int) -> tuple[type, int]:
        """Return the class."""
        return cls, amount

    @classmethod
    @track_feature("class_inside", capture=["amount"])
    def class_inside(cls, amount: int) -> tuple[type, int]:
        """Return the class."""
        return cls, amount

    @track_feature("static_outside", capture=["amount"])
    @staticmethod
    def static_outside(amount: int) -> int:
        """Return the amount."""
        return amount

    @staticmethod
    @track_feature("static_inside", capture=["amount"])
    def static_inside(amount: int) -> int:
        """Return the amount."""
        return amount

    @property
    @track_feature("below_property")
    def below_property(self) -> int:
        """Return one."""
        return 1


class Callable3:
    """A callable object."""

    size = 3

    def __call__(self, amount: int) -> int:
        """Return the sum."""
        return amount + self.size


class AsyncCallable:
    """A callable object with a coroutine as its call."""

    async def __call__(self) -> str:
        """Return a text."""
        await asyncio.sleep(0)
        return "awaited"


@wrapt.decorator
def by_wrapt(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    """Do nothing, like other libraries' decorators."""
    return wrapped(*args, **kwargs)


def test_function_makes_one_event_with_name_and_action(inspector: Inspector) -> None:
    """A successful call sends `feature_used` with the feature's name, and the function's name as action."""
    assert module_level(7) == 7
    assert arrived(inspector) == [{"feature_name": "module_level", "action": "module_level", "value": 7}]
    item = inspector.items()[0]
    assert (item["event_name"], item["user_id"], item["context"]["group_id"]) == ("feature_used", "user_1", "account_1")


def test_bare_decorator_takes_the_name_of_the_function(inspector: Inspector) -> None:
    """`@track_feature` without arguments names the feature after the function."""

    @track_feature
    def open_dashboard() -> None:
        """Do nothing."""

    open_dashboard()
    assert arrived(inspector) == [{"feature_name": "open_dashboard", "action": "open_dashboard"}]


def test_every_parameter_reaches_the_event(inspector: Inspector) -> None:
    """Each parameter of the decorator reaches its place in the item."""

    @track_feature(
        "export",
        event_name="custom",
        feature_type="core",
        action="clicked",
        interface="api",
        properties={"plan": "pro"},
        capture="rows",
        user_id="service",
        group_id=17,
    )
    def export(rows: list[int]) -> None:
        rows.append(0)

    export([1, 2])
    assert arrived(inspector) == [
        {
            "feature_name": "export",
            "feature_type": "core",
            "action": "clicked",
            "interface": "api",
            "plan": "pro",
            "rows": [1, 2],
        }
    ]
    item = inspector.items()[0]
    assert (item["event_name"], item["user_id"], item["context"]["group_id"]) == ("custom", "service", "17")


def test_methods_in_both_orders(inspector: Inspector) -> None:
    """Methods, classmethods and staticmethods are tracked in either order of decorators, with their arguments."""
    shop = Shop()
    assert shop.plain(1) == 1
    assert Shop.plain(shop, amount=2) == 2
    assert Shop.class_outside(3) == (Shop, 3)
    assert shop.class_inside(4) == (Shop, 4)
    assert Shop.static_outside(5) == 5
    assert shop.static_inside(6) == 6
    assert shop.below_property == 1
    assert [(p["feature_name"], p.get("amount")) for p in arrived(inspector)] == [
        ("plain", 1),
        ("plain", 2),
        ("class_outside", 3),
        ("class_inside", 4),
        ("static_outside", 5),
        ("static_inside", 6),
        ("below_property", None),
    ]


def test_other_callables(inspector: Inspector) -> None:
    """Partials, callable objects, bound methods, builtins and wrapt proxies are tracked and keep their behaviour."""
    target = Callable3()
    tracked = track_feature("object", capture=["amount"])(target)
    assert (tracked(4), tracked.size, isinstance(tracked, Callable3)) == (7, 3, True)
    assert module_partial() == 3
    assert track_feature("builtin")(len)("abc") == 3
    assert track_feature("bound", capture=["amount"])(Shop().plain)(5) == 5
    assert track_feature("wrapped", capture=["value"])(by_wrapt(module_level))(value=6) == 6
    events = arrived(inspector)
    assert [event["feature_name"] for event in events] == [
        "object", "module_level", "partial", "builtin", "plain", "bound", "module_level", "wrapped",
    ]  # fmt: skip
    assert [event["action"] for event in events][:4] == ["Callable3", "module_level", "module_level", "len"]
    assert [events[0]["amount"], events[5]["amount"], events[7]["value"]] == [4, 5, 6]


def test_method_that_another_decorator_wrapped(inspector: Inspector) -> None:
    """A wrapt-decorated method binds, and its captured arguments are found behind `self`."""

    class Service:
        @track_feature("wrapped_method", capture=["amount"])
        @by_wrapt
        def run(self, amount: int) -> int:
            return amount

    assert Service().run(3) == 3
    assert arrived(inspector) == [{"feature_name": "wrapped_method", "action": "run", "amount": 3}]


def test_coroutines(inspector: Inspector) -> None:
    """The event of a coroutine belongs to its end; a coroutine never awaited makes no event."""

    @track_feature("coroutine")
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    tracked_object = track_feature("async_object")(AsyncCallable())
    tracked_partial = track_feature("async_partial")(functools.partial(work))
    assert inspect.iscoroutinefunction(work)
    assert asyncio.iscoroutinefunction(work)
    assert inspect.iscoroutinefunction(tracked_partial)
    never = work()
    never.close()
    assert asyncio.run(work()) == "done"
    assert asyncio.run(tracked_object()) == "awaited"
    assert asyncio.run(tracked_partial()) == "done"
    names = [event["feature_name"] for event in arrived(inspector)]
    assert names == ["coroutine", "async_object", "coroutine", "async_partial"]


def test_generator_forwards_everything_and_counts_its_end(inspector: Inspector) -> None:
    """send, throw, close and the return value pass through; the event comes with the end, not with the first step."""

    @track_feature("generator", capture=["start"])
    def numbers(start: int) -> Generator[int, int, str]:
        try:
            got = yield start
            got = yield got + 1
        except KeyError:
            got = yield -1
        return f"ended {got}"

    assert inspect.isgeneratorfunction(numbers)
    running = numbers(5)
    assert [next(running), running.send(6), running.throw(KeyError())] == [5, 7, -1]
    assert flush(5)
    assert inspector.items() == []
    with pytest.raises(StopIteration) as stop:
        running.send(9)
    assert stop.value.value == "ended 9"
    assert arrived(inspector) == [{"feature_name": "generator", "action": "numbers", "start": 5}]


def test_generator_closed_early_counts_as_used(inspector: Inspector) -> None:
    """A generator closed early counts as used; a generator never begun does not."""
    closed = []

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        try:
            yield from range(10)
        finally:
            closed.append(True)

    running = rows()
    assert next(running) == 0
    running.close()
    rows().close()
    rows()
    assert closed == [True]
    assert len(arrived(inspector)) == 1


def test_generators_in_a_row(inspector: Inspector) -> None:
    """Each run of a generator counts."""

    @track_feature("rows")
    def rows() -> Iterator[int]:
        yield 1

    for _ in range(3):
        assert list(rows()) == [1]
    assert len(arrived(inspector)) == 3


def test_failing_generator_makes_no_event(inspector: Inspector) -> None:
    """A generator makes no event if its code raises, or if its consumer throws an exception into the generator."""

    @track_feature("rows")
    def rows() -> Generator[int, None, None]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        list(rows())
    thrown = rows()
    next(thrown)
    with pytest.raises(OSError, match="from outside"):
        thrown.throw(OSError("from outside"))
    assert arrived(inspector) == []
    assert stats().accepted == 0


def test_async_generator_forwards_everything(inspector: Inspector) -> None:
    """asend, athrow and aclose pass through; closing early counts as used; a failure does not."""
    closed = []

    @track_feature("stream")
    async def stream(fail: bool = False) -> AsyncGenerator[int, int]:  # noqa: FBT001, FBT002
        try:
            got = yield 1
            got = yield got + 1
            if fail:
                raise LookupError
        except KeyError:
            yield -1
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def main() -> None:
        running = stream()
        assert [await anext(running), await running.asend(6), await running.athrow(KeyError())] == [1, 7, -1]
        assert [item async for item in running] == []
        async with aclosing(stream()) as early:
            assert await anext(early) == 1
        failing = stream(fail=True)
        await anext(failing)
        await failing.asend(1)
        with pytest.raises(LookupError):
            await anext(failing)
        await stream().aclose()

    assert inspect.isasyncgenfunction(stream)
    asyncio.run(main())
    assert closed == [True] * 3
    assert len(arrived(inspector)) == 2


@pytest.mark.parametrize(("on", "expected"), [("success", [None]), ("error", [None]), ("always", ["success", "error"])])
def test_on_decides_which_outcomes_count(inspector: Inspector, on: Any, expected: list[str | None]) -> None:
    """`on` picks successes, failures or both; only "always" adds the outcome to the event."""

    @track_feature("div", on=on, capture=["by"])
    def divide(by: int) -> float:
        return 1 / by

    @track_feature("async_div", on=on)
    async def async_divide(by: int) -> float:
        return 1 / by

    for by in (1, 0):
        for call in (divide, lambda by: asyncio.run(async_divide(by))):
            try:
                call(by)
            except ZeroDivisionError:  # noqa: PERF203
                assert by == 0
    events = arrived(inspector)
    assert [event.get("outcome") for event in events if event["feature_name"] == "div"] == expected
    assert [event.get("outcome") for event in events if event["feature_name"] == "async_div"] == expected
    assert next(event["by"] for event in events if "by" in event) == (0 if on == "error" else 1)


def test_properties_callable_sees_the_finished_call(inspector: Inspector) -> None:
    """A callable makes properties of arguments, result and error; an event goes without them if the callable raises."""
    seen: list[FinishedCall] = []

    def describe(call: FinishedCall) -> dict[str, object]:
        seen.append(call)
        return {"rows": len(call.result)}

    @track_feature("export", properties=describe)
    def export(size: int) -> list[int]:
        return [0] * size

    @track_feature("async_export", properties=lambda call: {"rows": call.kwargs["size"]})
    async def async_export(*, size: int) -> None:
        await asyncio.sleep(size - size)

    @track_feature("failing", on="error", properties=describe)
    def failing() -> None:
        raise LookupError

    export(3)
    asyncio.run(async_export(size=4))
    with pytest.raises(LookupError):
        failing()
    assert [event.get("rows") for event in arrived(inspector)] == [3, 4, None]
    assert seen[0] == FinishedCall((3,), {}, [0, 0, 0], None)
    assert isinstance(seen[1].error, LookupError)


def test_capture_takes_defaults_keywords_and_leaves_the_rest(inspector: Inspector) -> None:
    """Captured arguments may be positional, keyword or default; other arguments are not copied."""

    @track_feature("f", capture=["a", "b", "extra"])
    def function(a: int, hidden: str, b: str = "default", **more: object) -> None:
        """Do nothing."""

    function(1, "hidden")
    function(a=2, hidden="hidden", b="given", extra=None)
    assert [{k: v for k, v in p.items() if k not in ("feature_name", "action")} for p in arrived(inspector)] == [
        {"a": 1, "b": "default"},
        {"a": 2, "b": "given", "extra": None},
    ]


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


def test_suppressed_calls_are_counted(inspector: Inspector) -> None:
    """Inside `suppress` no event is sent, and each event is counted."""

    @suppress()
    def silent() -> None:
        module_level()

    silent()
    with suppress(), user_context("user_2", group_id="g"), track_feature("block"):
        module_level()
    module_level()
    assert len(arrived(inspector)) == 1
    assert stats().dropped == {"suppressed": 3}
    assert stats().accepted == 4


def test_extras_are_a_snapshot(inspector: Inspector) -> None:
    """Changes to a list after the call do not change the event."""
    rows = [1]

    @track_feature("f", capture=["rows"], properties=lambda call: {"nested": {"rows": call.args[0]}})
    def function(rows: list[int]) -> None:
        add_properties(added=rows)

    function(rows)
    rows.append(2)
    event = arrived(inspector)[0]
    assert (event["rows"], event["nested"], event["added"]) == ([1], {"rows": [1]}, [1])


def test_signature_and_metadata_survive() -> None:
    """Name, docstring, signature, annotations, defaults and `__wrapped__` are the function's own."""

    def original(a: int, *, b: str = "x") -> list[str]:
        """Say something."""
        return [b] * a

    tracked = track_feature("f")(original)
    assert inspect.signature(tracked) == inspect.signature(original)
    assert (tracked.__name__, tracked.__doc__, tracked.__module__) == ("original", "Say something.", __name__)
    assert tracked.__wrapped__ is original  # type: ignore[attr-defined]
    assert type(tracked) is type(original)
    partial = functools.partial(original, 1)
    assert inspect.signature(track_feature("p")(partial)) == inspect.signature(partial)


def test_pickle_and_copy(inspector: Inspector) -> None:
    """A decorated function is pickled by name; a partial, by its parts. Copies are tracked, too."""
    assert pickle.loads(pickle.dumps(module_level)) is module_level  # noqa: S301
    assert copy.copy(module_level) is module_level
    assert pickle.loads(pickle.dumps(Shop().plain))(1) == 1  # noqa: S301
    for twin in (
        pickle.loads(pickle.dumps(module_partial)),  # noqa: S301
        copy.copy(module_partial),
        copy.deepcopy(module_partial),
    ):
        assert twin() == 3
    names = [event["feature_name"] for event in arrived(inspector)]
    assert names == ["plain", *["module_level", "partial"] * 3]


def test_traceback_shows_no_frame_of_ours() -> None:
    """The user's traceback has the user's frames only, for every kind of function and callable."""

    def boom() -> None:
        raise LookupError

    async def async_boom() -> None:
        await asyncio.sleep(0)
        boom()

    def gen_boom() -> Iterator[int]:
        yield 1
        boom()

    async def agen_boom() -> AsyncGenerator[int, None]:
        yield 1
        boom()

    async def consume(stream: Any) -> None:
        async for _ in stream:
            pass

    for decorate in (track_feature("f"), user_context("u"), suppress()):
        calls: list[Callable[[], object]] = [
            decorate(boom),
            decorate(functools.partial(boom)),
            lambda d=decorate: asyncio.run(d(async_boom)()),  # type: ignore[misc]
            lambda d=decorate: list(d(gen_boom)()),  # type: ignore[misc]
            lambda d=decorate: asyncio.run(consume(d(agen_boom)())),  # type: ignore[misc]
            lambda d=decorate: d(boom)("unexpected"),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises((LookupError, TypeError)) as caught:
                call()
            assert frames_of_ours(caught.value) == []


def test_suspended_call_keeps_no_argument_alive() -> None:
    """An argument released by a suspended coroutine, generator or async generator is freed at once."""

    class Big:
        """An object for weak references."""

    async def coroutine(big: Big | None) -> None:
        big = None  # noqa: F841 - releases the argument
        await asyncio.sleep(0)

    def generator(big: Big | None) -> Iterator[int]:
        big = None  # noqa: F841 - releases the argument
        yield 1

    async def async_generator(big: Big | None) -> AsyncGenerator[int, None]:
        big = None  # noqa: F841 - releases the argument
        yield 1

    async def drive(kind: str, decorate: Any) -> weakref.ref[Big]:
        big = Big()
        watch = weakref.ref(big)
        if kind == "coroutine":
            suspended: Any = decorate(coroutine)(big)
            suspended.send(None)
        elif kind == "generator":
            suspended = decorate(generator)(big)
            next(suspended)
        else:
            suspended = decorate(async_generator)(big)
            await anext(suspended)
        del big
        assert watch() is None, kind
        if kind == "async generator":
            await suspended.aclose()
        else:
            suspended.close()
        return watch

    gc.disable()
    try:
        for decorate in (track_feature("f"), user_context("u")):
            for kind in ("coroutine", "generator", "async generator"):
                asyncio.run(drive(kind, decorate))
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: track_feature("f")(Shop), TypeError, "cannot decorate the class Shop.*__init__"),
        (lambda: track_feature(Shop), TypeError, "cannot decorate the class Shop"),
        (lambda: track_feature("f")(property(len)), TypeError, "below @property"),
        (lambda: track_feature(7), TypeError, "int object: it is not callable"),  # type: ignore[call-overload]
        (lambda: track_feature("f", capture=["nope"])(len), TypeError, "len has no argument 'nope'"),
        (lambda: track_feature("f", capture=[1]), TypeError, "names of arguments"),  # type: ignore[list-item]
        (lambda: track_feature(" "), TypeError, "name=' '"),
        (lambda: track_feature("f", event_name=""), TypeError, "event_name"),
        (lambda: track_feature("f", feature_type="cor"), ValueError, "core, sticky, support"),  # type: ignore[call-overload]
        (lambda: track_feature("f", interface="web"), ValueError, "api, cli, agent"),  # type: ignore[call-overload]
        (lambda: track_feature("f", on="never"), ValueError, "success, error, always"),  # type: ignore[call-overload]
        (lambda: track_feature("f", properties=3), TypeError, "a dict or a callable"),  # type: ignore[call-overload]
        (lambda: track_feature().__enter__(), TypeError, "needs the feature's name"),
    ],
)
def test_misuse_raises_at_decoration(make: Callable[[], object], error: type[Exception], message: str) -> None:
    """A wrong argument raises at once, and the message names the remedy."""
    with pytest.raises(error, match=message):
        make()


def test_kind_is_seen_through_partials_and_marks(inspector: Inspector) -> None:
    """A partial of a generator function, or of an async generator function, is tracked as a generator."""

    def rows(start: int) -> Iterator[int]:
        yield start

    async def stream(start: int) -> AsyncGenerator[int, None]:
        yield start

    tracked_rows = track_feature("rows", on="always")(functools.partial(rows, 1))
    tracked_stream = track_feature("stream")(functools.partial(stream, 2))

    async def consume() -> list[int]:
        return [item async for item in tracked_stream()]

    running = tracked_rows()
    assert flush(5)
    assert stats().accepted == 0
    assert list(running) == [1]
    assert asyncio.run(consume()) == [2]
    assert [(p["feature_name"], p.get("outcome")) for p in arrived(inspector)] == [
        ("rows", "success"),
        ("stream", None),
    ]


def test_abandoned_generator_is_its_own_users(inspector: Inspector) -> None:
    """A generator collected while another user acts counts for its own user."""

    @track_feature("rows")
    def rows() -> Iterator[int]:
        yield 1
        yield 2

    def block() -> Iterator[int]:
        with track_feature("block"):
            yield 1

    class Holder:
        """A reference cycle."""

    def begin() -> None:
        with user_context("alice", group_id="a"):
            for generator in (rows(), block()):
                next(generator)
                holder: Any = Holder()
                holder.itself, holder.generator = holder, generator

    gc.disable()
    try:
        begin()
        with user_context("bob", group_id="b"):
            gc.collect()
    finally:
        gc.enable()
    assert flush(10)
    assert [(item["user_id"], item["properties"]["feature_name"]) for item in inspector.items()] in (
        [("alice", "rows"), ("alice", "block")],
        [("alice", "block"), ("alice", "rows")],
    )


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


def test_exceptions_that_refuse_attributes_pass_through() -> None:
    """The caller gets an exception without settable attributes, such as a frozen dataclass, unchanged."""

    @dataclasses.dataclass(frozen=True)
    class FrozenError(Exception):
        code: int

    def fail() -> None:
        raise FrozenError(1)

    for decorate in (track_feature("f"), user_context("u")):
        with pytest.raises(FrozenError):
            decorate(fail)()


def test_event_loop_closes_abandoned_async_generators_without_complaint() -> None:
    """Async generators left suspended at the end of the loop are closed once, by the wrapper."""
    code = """
import asyncio, gc
from ts_autotrack import track_feature, user_context
closed = []
async def rows():
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0.01)
        closed.append(1)
async def main():
    global kept
    kept = [track_feature("f")(rows)(), user_context("u")(rows)()]
    for generator in kept: await anext(generator)
    dropped = track_feature("f")(rows)(); await anext(dropped)
    cycle = [dropped]; cycle.append(cycle); del dropped, cycle
    gc.collect(); await asyncio.sleep(0.05)
asyncio.run(main(), debug=True)
print(len(closed))
"""
    done = run_python(code, TS_AUTOTRACK_DISABLED="1")
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_coroutine_functions_that_others_made_plain(inspector: Inspector) -> None:
    """A plain wrapper of a coroutine function makes its event at the awaited end; a failure makes no event."""

    def by_others(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(fail: str = "") -> Any:
            if fail == "at once":
                raise LookupError
            return function(fail) if fail != "no coroutine" else fail

        return call

    @track_feature("wrapped", capture=["fail"])
    @by_others
    async def work(fail: str) -> str:
        await asyncio.sleep(0)
        add_properties(ran=True)
        if fail == "later":
            raise LookupError
        return "done"

    waiting = work()
    assert flush(5)
    assert stats().accepted == 0
    assert asyncio.run(waiting) == "done"
    assert work("no coroutine") == "no coroutine"
    for moment in ("at once", "later"):
        with pytest.raises(LookupError) as caught:
            asyncio.run(work(moment))
        assert frames_of_ours(caught.value) == []
    assert [(p.get("fail"), p.get("ran")) for p in arrived(inspector)] == [(None, True), ("no coroutine", None)]


def test_generator_based_coroutines_are_awaited(inspector: Inspector) -> None:
    """A function of `types.coroutine` can still be awaited."""

    @track_feature("old_style")
    @types.coroutine
    def old_style() -> Generator[None, None, int]:
        yield
        return 3

    async def main() -> int:
        return await old_style()

    assert asyncio.run(main()) == 3
    assert len(arrived(inspector)) == 1


def test_decorators_by_others_around_static_and_class_methods(inspector: Inspector) -> None:
    """A proxy of a staticmethod, and a descriptor that does not bind, keep their arguments in place."""

    class Unbinding:
        def __init__(self, function: Callable[..., Any]) -> None:
            self.function = function
            functools.update_wrapper(self, function)

        def __call__(self, *args: Any) -> Any:
            return self.function(*args)

        def __get__(self, instance: object, owner: object = None) -> Callable[..., Any]:
            return self.function

    class Service:
        @track_feature("static", capture=["a", "b"])
        @by_wrapt
        @staticmethod
        def static(a: int, b: int) -> int:
            return a + b

        @track_feature("unbound", capture=["a", "b"])
        @Unbinding
        def unbound(a: int, b: int) -> int:  # noqa: N805
            return a + b

    calls: Any = Service
    assert (calls.static(1, 2), calls().static(3, 4), calls.unbound(5, 6)) == (3, 7, 11)
    assert [(p["a"], p["b"]) for p in arrived(inspector)] == [(1, 2), (3, 4), (5, 6)]


@track_feature("cached")
@functools.lru_cache
def cached(value: int) -> int:
    """Return the value."""
    return value


def test_cached_function_is_pickled_by_name() -> None:
    """A function found by its name is pickled by name, and copies are the function itself."""
    assert pickle.loads(pickle.dumps(cached)) is cached  # noqa: S301
    assert copy.copy(cached) is cached
    assert copy.deepcopy(cached) is cached


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


def test_thrown_exceptions_are_not_kept_and_show_no_frame_of_ours() -> None:
    """An exception thrown into an async generator by its consumer passes through without frames of the library."""

    @track_feature("f")
    async def rows() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> None:
        running = rows()
        await anext(running)
        await running.athrow(OSError("thrown"))

    with pytest.raises(OSError, match="thrown") as caught:
        asyncio.run(main())
    assert frames_of_ours(caught.value) == []


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


def test_calls_at_the_recursion_limit_see_no_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any depth of the stack, a call which succeeds inside a plain wrapper succeeds inside the library's wrapper."""
    monkeypatch.setattr(diagnostics, "reraise", False)

    def leaf(value: list[int]) -> int:
        return value[0]

    tracked = track_feature("leaf", capture=["value"], on="always", properties=lambda call: {"r": call.result})(leaf)
    plain = functools.wraps(leaf)(lambda *args, **kwargs: leaf(*args, **kwargs))  # noqa: PLW0108

    def at_depth(function: Callable[..., int], depth: int) -> int:
        return function([1]) if depth == 0 else at_depth(function, depth - 1)

    def fails(function: Callable[..., int], depth: int) -> bool:
        try:
            at_depth(function, depth)
        except RecursionError:
            return True
        return False

    deepest = next(depth for depth in range(sys.getrecursionlimit(), 0, -1) if not fails(plain, depth))
    deepest -= sys.gettrace() is not None  # a tracer needs a frame, too
    assert [depth for depth in range(deepest, deepest - 40, -1) if fails(tracked, depth)] == []


@pytest.mark.parametrize("call", [lambda: track("e", {"a": [1]}), lambda: identify({"a": [1]}), lambda: group("g")])
def test_events_at_the_recursion_limit(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]) -> None:
    """At any depth of the stack with space for a function call, the functions to send events never raise."""
    monkeypatch.setattr(diagnostics, "reraise", False)

    def any_function() -> None: ...

    def at_depth(function: Callable[[], None], depth: int) -> bool:
        try:
            if depth:
                return at_depth(function, depth - 1)
            function()
        except RecursionError:
            return False
        return True

    deepest = next(depth for depth in range(sys.getrecursionlimit(), 0, -1) if at_depth(lambda: any_function(), depth))  # noqa: PLW0108
    deepest -= sys.gettrace() is not None
    assert [depth for depth in range(deepest, deepest - 40, -1) if not at_depth(call, depth)] == []


@pytest.mark.slow
def test_decorated_function_works_in_a_spawned_process() -> None:
    """A decorated function can be sent to a process pool with spawned workers."""
    code = """
import sys; sys.path.insert(0, {path!r})
import multiprocessing
from tests.test_features import module_level, module_partial
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(module_level, [1, 2]), pool.apply(module_partial))
"""
    done = run_python(code.format(path=sys.path[0] or "."), TS_AUTOTRACK_DISABLED="1", PYTHONPATH=":".join(sys.path))
    assert done.stdout.strip() == "[1, 2] 3", done.stderr
