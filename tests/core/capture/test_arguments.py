"""Captured arguments behind decorators by others: the function's own arguments, or a refusal; never a neighbour."""

from __future__ import annotations

import asyncio
import functools
import operator
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import wrapt

from tests.core.conftest import arrived, frames_of_ours
from ts_autotrack import track_feature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")

SECRET = "do not copy"


def captured(inspector: Inspector, *names: str) -> list[tuple[Any, ...]]:
    """Return the captured values of the arrived events; no other argument may be in an event."""
    events = arrived(inspector)
    assert SECRET not in str(events)
    return [tuple(event.get(name) for name in names) for event in events]


def injects(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call the function with one more argument in front, as a decorator that opens a connection does."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(SECRET, *args, **kwargs)

    return call


def drops(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take an argument away from the caller's, as a decorator that checks a token does."""

    @functools.wraps(function)
    def call(token: str, *args: Any, **kwargs: Any) -> Any:
        assert token == SECRET
        return function(*args, **kwargs)

    return call


def reorders(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass the arguments in another order."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*reversed(args))

    return call


def renames(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take arguments under other names."""

    @functools.wraps(function)
    def call(first: Any, *, report: Any) -> Any:
        return function(connection=first, name=report)

    return call


def by_keyword(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass all arguments by keyword."""

    @functools.wraps(function)
    def call(name: Any, **more: Any) -> Any:
        return function(connection=SECRET, name=name, **more)

    return call


def pops(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take all arguments out of a dict, which then keeps none alive."""

    @functools.wraps(function)
    async def call(holder: dict[str, Any]) -> Any:
        return await function(holder.pop("name"))

    return call


def export(connection: object, name: str, size: int = 3) -> tuple[object, str, int]:
    """Return the arguments."""
    return connection, name, size


CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (injects, ("a",), {}),
    (injects, (), {"name": "a"}),
    (drops, (SECRET, SECRET, "a"), {}),
    (drops, (SECRET,), {"connection": SECRET, "name": "a"}),
    (reorders, (3, "a", SECRET), {}),
    (renames, (SECRET,), {"report": "a"}),
    (by_keyword, ("a",), {}),
    (by_keyword, ("a",), {"size": 3}),
    (lambda function: injects(by_others(function)), ("a",), {}),
    (lambda function: by_others(injects(function)), ("a",), {}),
    (lambda function: drops(injects(function)), (SECRET, "a"), {}),
]


def by_others(function: Callable[..., Any]) -> Callable[..., Any]:
    """Pass everything on."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize(("decorate", "args", "kwargs"), CALLS)
@pytest.mark.parametrize("on", ["success", "always"])
def test_behind_decorators_that_change_arguments(
    decorate: Any, args: tuple[Any, ...], kwargs: dict[str, Any], on: Any, inspector: Inspector
) -> None:
    """The captured value is the value that the function gets, defaults included, wherever the caller has put it."""
    tracked = track_feature("f", capture=["name", "size"], on=on)(decorate(export))
    undecorated = decorate(export)
    assert tracked(*args, **kwargs) == undecorated(*args, **kwargs) == (SECRET, "a", 3)
    assert captured(inspector, "name", "size") == [("a", 3)]


def test_kinds_behind_decorators(inspector: Inspector) -> None:
    """Coroutine functions and generators behind a decorator are captured, too."""

    async def coroutine(_connection: object, name: str) -> str:
        await asyncio.sleep(0)
        return name

    def rows(_connection: object, name: str) -> Iterator[str]:
        yield name

    @track_feature("async", capture=["name"])
    @injects
    async def decorated(_connection: object, name: str) -> str:
        await asyncio.sleep(0)
        return name

    def async_injects(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def call(*args: Any) -> Any:
            return await function(SECRET, *args)

        return call

    capture = track_feature("f", capture=["name"])
    assert asyncio.run(decorated("a")) == "a"
    assert asyncio.run(capture(injects(coroutine))("b")) == "b"
    assert asyncio.run(capture(async_injects(coroutine))("c")) == "c"
    assert list(capture(injects(rows))("d")) == ["d"]
    assert captured(inspector, "name") == [("a",), ("b",), ("c",), ("d",)]


def test_methods_behind_decorators(inspector: Inspector) -> None:
    """Methods, classmethods and staticmethods behind a decorator are captured without their first argument."""

    def inner_injects(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(self: Any, *args: Any) -> Any:
            return function(self, SECRET, *args)

        return call

    class Shop:
        @track_feature("method", capture=["name"])
        @inner_injects
        def method(self, _connection: object, name: str) -> str:
            return name

        @track_feature("class", capture=["name"])
        @classmethod
        @inner_injects
        def of_class(cls, _connection: object, name: str) -> str:
            return name

        @staticmethod
        @track_feature("static", capture=["name"])
        @injects
        def static(_connection: object, name: str) -> str:
            return name

    shop: Any = Shop()
    assert (shop.method("a"), shop.of_class("b"), shop.static("c")) == ("a", "b", "c")
    assert captured(inspector, "name") == [("a",), ("b",), ("c",)]


def test_nothing_of_ours_is_seen_behind_decorators() -> None:
    """Tracebacks of captured functions behind a decorator show no frame of the library; no argument is kept alive."""

    class Big:
        """An object for weak references."""

    def fails(_connection: object, name: str) -> str:
        raise LookupError(name)

    async def suspends(name: Big | None) -> None:
        name = None  # noqa: F841 - releases the argument
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError) as caught:
        track_feature("f", capture=["name"])(injects(fails))("a")
    assert frames_of_ours(caught.value)[2 if sys.version_info < (3, 11) else 0 :] == []

    big = Big()
    watched = weakref.ref(big)
    holder = {"name": big}
    waiting: Any = track_feature("f", capture=["name"])(pops(suspends))(holder)
    del big
    waiting.send(None)
    assert watched() is None
    with pytest.raises(LookupError) as caught:
        waiting.send(None)
    assert frames_of_ours(caught.value)[2 if sys.version_info < (3, 11) else 0 :] == []


def test_two_features_on_one_function(inspector: Inspector) -> None:
    """Features above and below a decorator, and two above it, each capture their own arguments."""
    below = track_feature("below", capture=["name"])(export)
    inner = track_feature("inner", capture=["size", "name"])(injects(below))
    outer = track_feature("outer", capture=["name"])(inner)
    assert outer("a") == (SECRET, "a", 3)
    assert captured(inspector, "feature_name", "name", "size") == [
        ("below", "a", None),
        ("inner", "a", 3),
        ("outer", "a", None),
    ]


def test_two_features_on_one_decorated_function(inspector: Inspector) -> None:
    """Two features made of the same decorated function capture the arguments of their own calls."""
    shared = injects(export)
    first, second = track_feature("first", capture="name")(shared), track_feature("second", capture="size")(shared)
    assert (first("a"), second("b", 5), shared("c")) == ((SECRET, "a", 3), (SECRET, "b", 5), (SECRET, "c", 3))
    assert captured(inspector, "feature_name", "name", "size") == [("first", "a", None), ("second", None, 5)]


def test_retries_and_caches(inspector: Inspector) -> None:
    """A function called twice gives the last call's values; a cached call that runs no function gives none."""
    tries: list[str] = []

    def retried(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: str, number: int = 0) -> Any:
            try:
                return function(SECRET, f"{args[0]}{number}")
            except LookupError:
                return call(*args, number=number + 1)

        return call

    def cached(function: Callable[..., Any]) -> Callable[..., Any]:
        known: dict[tuple[str, ...], Any] = {}

        @functools.wraps(function)
        def call(*args: str) -> Any:
            if args not in known:
                known[args] = function(SECRET, *args)
            return known[args]

        return call

    @track_feature("retried", capture=["name"])
    @retried
    def unstable(_connection: object, name: str) -> str:
        tries.append(name)
        if len(tries) < 2:
            raise LookupError
        return name

    stored: Any = track_feature("cached", capture=["name"])(cached(export))
    assert unstable("a") == "a1"
    assert (stored("b"), stored("b")) == ((SECRET, "b", 3),) * 2
    assert captured(inspector, "name") == [("a1",), ("b",), (None,)]


def test_caches_of_functools(inspector: Inspector) -> None:
    """Functools' caches pass arguments on unchanged, so each call is captured, cached or not."""

    @track_feature("cached", capture=["a", "b"])
    @functools.lru_cache
    def add(a: int, b: int = 2) -> int:
        return a + b

    assert [add(1), add(1), add(1, b=5), add(b=1, a=1)] == [3, 3, 6, 2]
    assert captured(inspector, "a", "b") == [(1, 2), (1, 2), (1, 5), (1, 1)]


def test_partials(inspector: Inspector) -> None:
    """A partial's own arguments are captured as given; arguments that the partial supplies have their value."""
    positional: Any = track_feature("positional", capture=["name"])(functools.partial(export, SECRET))
    keyword: Any = track_feature("keyword", capture=["size"])(functools.partial(export, size=7))
    assert positional("a") == (SECRET, "a", 3)
    assert keyword(SECRET, "b") == (SECRET, "b", 7)
    assert keyword(SECRET, "b", size=8) == (SECRET, "b", 8)
    assert captured(inspector, "name", "size") == [("a", None), (None, 7), (None, 8)]


def test_decorators_of_wrapt(inspector: Inspector) -> None:
    """A wrapt decorator that injects or drops an argument does not shift the captured ones."""

    @wrapt.decorator
    def wrapt_injects(wrapped: Callable[..., Any], _instance: object, args: Any, kwargs: Any) -> Any:
        return wrapped(SECRET, *args, **kwargs)

    class Shop:
        @track_feature("method", capture=["name"])
        @wrapt_injects
        def method(self, _connection: object, name: str) -> str:
            return name

    @track_feature("function", capture=["name"])
    @wrapt_injects
    def function(_connection: object, name: str) -> str:
        return name

    calls: Any = function
    shop: Any = Shop()
    assert (calls("a"), calls(name="b"), shop.method("c")) == ("a", "b", "c")
    assert captured(inspector, "name") == [("a",), ("b",), ("c",)]


class ClassBased:
    """Decorator that is a class, and injects an argument."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(SECRET, *args, **kwargs)


class Slotted:
    """Decorator that is a class and keeps its function in a slot."""

    __slots__ = ("__wrapped__",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(SECRET, *args, **kwargs)


@pytest.mark.parametrize("decorate", [ClassBased, Slotted])
def test_decorators_that_are_classes(decorate: Any, inspector: Inspector) -> None:
    """Objects around a function are captured at the function, or refused."""
    try:
        tracked = track_feature("f", capture=["name"])(decorate(export))
    except TypeError as error:
        assert "'name'" in str(error)  # noqa: PT017 - refused
        return
    assert tracked("a") == (SECRET, "a", 3)
    assert captured(inspector, "name") == [("a",)]


def test_functions_of_c(inspector: Inspector) -> None:
    """A function of C is captured by its own signature, or refused if it has none."""
    power = track_feature("pow", capture=["base", "exp"])(pow)
    assert (power(2, 3), power(2, exp=4)) == (8, 16)
    assert captured(inspector, "base", "exp") == [(2, 3), (2, 4)]
    for function in (dict.fromkeys, max, operator.itemgetter(1)):
        with pytest.raises(TypeError, match="'unknown'"):
            track_feature("f", capture=["unknown"])(function)


def keeps_globally(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate with a function whose reference to the original cannot be found."""
    number = len(_FUNCTIONS)
    _FUNCTIONS.append(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _FUNCTIONS[number](SECRET, *args, **kwargs)

    return call


_FUNCTIONS: list[Callable[..., Any]] = []


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (export, "missing"),
        (injects(export), "missing"),
        (functools.partial(export, SECRET), "connection"),
        (functools.partial(export), "missing"),
        (functools.lru_cache(export), "missing"),
        (drops(export), "missing"),
        (lambda *args: args, "args"),
        (lambda *args: args, "name"),
    ],
)
def test_refused_at_decoration(target: Any, name: str) -> None:
    """An argument that no function behind the decorators has is refused at decoration, and the message names it."""
    with pytest.raises(TypeError, match=rf"capture.*no argument '{name}'"):
        track_feature("f", capture=[name])(target)


def test_function_out_of_sight() -> None:
    """A decorator that keeps its function where nobody finds it is refused, and the message says what to do."""
    with pytest.raises(TypeError, match=r"out of sight: put @track_feature below"):
        track_feature("f", capture=["name"])(keeps_globally(export))


def test_any_keyword_arguments(inspector: Inspector) -> None:
    """A function that takes any keyword argument is captured by the given keyword, also behind a decorator."""

    def search(**filters: Any) -> int:
        return len(filters)

    for decorate in (track_feature("f", capture=["city"]), lambda f: track_feature("f", capture="city")(by_others(f))):
        decorated: Any = decorate(search)
        assert (decorated(city="Rome", secret=SECRET), decorated()) == (2, 0)
    assert captured(inspector, "city") == [("Rome",), (None,)] * 2
