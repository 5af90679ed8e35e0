"""Kinds of callables: methods, partials, objects, builtins, and callables wrapped by other decorators."""

from __future__ import annotations

import asyncio
import functools
import time
import types
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.conftest import run_python
from tests.core.conftest import arrived, frames_of_ours
from tests.core.subjects import Callable3, Shop, by_wrapt, module_level, module_partial
from ts_autotrack import add_properties, flush, stats, suppress, track_feature
from ts_autotrack._core import decorate as decorate_module

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


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
    assert [(p.get("fail"), p.get("ran")) for p in arrived(inspector)] == [("", True), ("no coroutine", None)]


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


def test_capture_behind_a_decorator_of_wrapt_without_its_c_code() -> None:
    """The proxies of wrapt in Python, as on PyPy, show the arguments of the function inside, too."""
    code = """
import wrapt
from ts_autotrack import track_feature
@wrapt.decorator
def by_wrapt(wrapped, instance, args, kwargs): return wrapped(*args, **kwargs)
class Service:
    @track_feature("method", capture=["amount"], user_id="u")
    @by_wrapt
    def method(self, amount): pass
    @track_feature("static", capture=["amount"], user_id="u")
    @by_wrapt
    @staticmethod
    def static(amount): pass
Service().method(3); Service.static(4)
"""
    done = run_python(code, WRAPT_DISABLE_EXTENSIONS="1", TS_AUTOTRACK_EXPORTER="console")
    assert [line.partition('"amount": ')[2] for line in done.stderr.splitlines()] == ["3}", "4}"], done.stderr


class Tagged(staticmethod):  # type: ignore[type-arg]
    """Staticmethod of another library, with arguments, attributes and slots of its own."""

    __slots__ = ("order",)

    def __init__(self, function: Callable[..., Any], tag: str, order: int) -> None:
        super().__init__(function)
        self.tag = tag
        self.order = order


def test_classmethod_objects_keep_type_and_attributes(inspector: Inspector) -> None:
    """A tracked classmethod or staticmethod object keeps its subclass, attributes and slots; the original stays."""

    def function(*_: object) -> int:
        return 1

    def other(*_: object) -> int:
        return 1

    plain: Any = classmethod(function)
    plain.route = "/x"
    plain.__doc__ = "Own words."
    tracked = track_feature("class")(plain)
    assert (type(tracked), tracked.route, tracked.__doc__, tracked.__name__) == (
        classmethod, "/x", "Own words.", "function",
    )  # fmt: skip
    tagged = track_feature("static")(Tagged(other, "mine", 7))
    assert (type(tagged), tagged.tag, tagged.order) == (Tagged, "mine", 7)
    assert plain.__func__ is function

    class Service:
        by_class = tracked
        by_static = tagged

    assert (Service.by_class(), Service().by_static()) == (1, 1)
    assert [p["feature_name"] for p in arrived(inspector)] == ["class", "static"]


def test_a_classmethod_around_the_same_function_is_returned_itself() -> None:
    """Decorating a function in place leaves the classmethod object in place, too."""
    method = classmethod(lambda cls: cls)
    twin = decorate_module._with_function(classmethod, method, method.__func__)
    assert twin is method


class Inventing:
    """A callable object with a new object for every attribute."""

    def __getattr__(self, name: str) -> Inventing:
        return Inventing()

    def __call__(self, *args: object) -> int:
        """Count the arguments."""
        return len(args)


class Raising:
    """A callable object whose unknown attributes raise the error of an unbound request."""

    def __getattr__(self, name: str) -> Any:
        message = f"working outside of a request: {name}"
        raise RuntimeError(message)

    def __call__(self) -> int:
        """Return one."""
        return 1


class Unbound(Raising):
    """A lazy object that cannot even tell its class."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


def spec() -> int:
    """Return one."""
    return 1


INVENTED: dict[str, Callable[[], Any]] = {
    "Mock": mock.Mock,
    "MagicMock": mock.MagicMock,
    "AsyncMock": mock.AsyncMock,
    "NonCallableMock": mock.NonCallableMock,
    "mock of a function": lambda: mock.Mock(spec=spec),
    "mock of a partial": lambda: mock.Mock(spec=functools.partial(spec)),
    "mock of a method": lambda: mock.Mock(spec=Shop().plain),
    "mock of a class": lambda: mock.create_autospec(Shop),
    "autospec": lambda: mock.create_autospec(spec),
    "mock.call": lambda: mock.call,
    "sentinel": lambda: mock.sentinel.name,
    "inventing": Inventing,
    "raising": Raising,
    "unbound": Unbound,
}


@pytest.mark.parametrize("make", INVENTED.values(), ids=INVENTED)
def test_objects_that_invent_attributes_are_decorated_or_refused(make: Callable[[], Any]) -> None:
    """A Mock, and an object whose attributes never end or raise, is decorated or refused with TypeError, in time."""
    begun = time.process_time()
    for decorate in (track_feature("x"), track_feature, track_feature("x", capture=["a"]), suppress()):
        target = make()
        try:
            tracked: Any = decorate(target)
        except TypeError as error:
            assert str(error)  # noqa: PT017 - any of the targets may be refused
        else:
            assert tracked is not None
    assert time.process_time() - begun < 5


def test_a_tracked_mock_is_still_a_mock(inspector: Inspector) -> None:
    """A tracked Mock counts its calls, can be configured, and makes an event for each call."""
    target = mock.Mock(return_value=3)
    tracked = track_feature("mock")(target)
    assert tracked(1) == 3
    target.assert_called_once_with(1)
    tracked.assert_called_once_with(1)
    assert arrived(inspector) == [{"feature_name": "mock", "action": "Mock"}]


def test_inventing_objects_are_tracked(inspector: Inspector) -> None:
    """The class gives the action of an object whose name cannot be read."""
    assert track_feature("a")(Inventing())(1, 2) == 2
    assert [(p["feature_name"], p["action"]) for p in arrived(inspector)] == [("a", "Inventing")]


def test_an_object_that_cannot_be_read_is_refused() -> None:
    """The message names the class of the object, and the error is its cause."""
    with pytest.raises(TypeError, match="cannot decorate Unbound object: reading its attributes raises") as caught:
        track_feature("x")(Unbound())
    assert type(caught.value.__cause__) is RuntimeError
