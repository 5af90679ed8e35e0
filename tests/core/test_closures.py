"""Closures: the wrapper of a function has the function's own argument list and globals.

`on="always"` makes a closure on every Python; with `on="success"` Python 3.12 and newer watch the function instead.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import sys
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import run_python
from tests.core import subjects
from tests.core.conftest import arrived
from ts_autotrack import suppress, track_feature, user_context
from ts_autotrack._core import closures

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

DECORATORS: list[Callable[[Any], Any]] = [
    track_feature("f", on="always"),
    track_feature("f"),
    user_context("u"),
    suppress(),
    lambda function: user_context("u")(track_feature("f", on="error")(suppress()(function))),
]
PREFIXES = {"function": "def", "coroutine": "async def", "generator": "def", "async generator": "async def"}
ARGUMENT_LISTS = [
    "",
    "a",
    "a, /",
    "a, b=1, /, c=2, *, d, e=3",
    "*args",
    "**kwargs",
    "*args, **kwargs",
    "a, /, **kw",
    "*, k",
    "*, k=1, **kw",
    "a, b=2, *args, k, l=3, **kw",
    # The templates' own names, and their placeholders in another order.
    "ts, py, ts_function, ts_result, ts_error, ts_scope, ts_limit, ts_fault, ts_rule, ts_block, ts_items",
    "args, kwargs, call, self, make, cls, _0=0, _1=1",
    "_1, _0, *, _3, _2=2",
    "*_1, _0",
    "*ts, py, **_0",
    "*, _1, _0, **_2",
    ", ".join(f"a{index}" for index in range(300)),
    "*, " + ", ".join(f"k{index}" for index in range(40)) + ", **kw",
]
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1,), {}),
    ((1, 2), {}),
    (tuple(range(11)), {}),
    (tuple(range(300)), {}),
    ((), {"a": 1}),
    ((1,), {"a": 2}),
    ((), {"k": 1}),
    ((1,), {"d": 5, "k": 3}),
    ((5,), {"_0": 1, "_1": 2}),
    ((5, 6), {"_3": 1, "_2": 2}),
    ((), {"_0": 1, "_1": 2, "_9": 3}),
    ((), {"ts": 1, "py": 2}),
    ((), {f"k{index}": -index for index in range(41)}),
]


def make(argument_list: str, kind: str = "function") -> Any:
    """Return a new function that returns, or yields, all of its arguments by name."""
    result = "yield" if "generator" in kind else "return"
    namespace: dict[str, Any] = {}
    exec(f"{PREFIXES[kind]} function({argument_list}):\n    {result} dict(locals())", namespace)  # noqa: S102
    return namespace["function"]


def outcome(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Return the result of a call, or the text of its TypeError."""
    try:
        result = function(*args, **kwargs)
    except TypeError as error:
        return str(error)
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    if inspect.isasyncgen(result):
        try:
            anext(result).send(None)
        except StopIteration as step:
            return step.value
    return next(result) if inspect.isgenerator(result) else result


@pytest.mark.parametrize("argument_list", ARGUMENT_LISTS)
@pytest.mark.parametrize("kind", PREFIXES)
def test_every_argument_list(argument_list: str, kind: str) -> None:
    """Any call of a decorated function gives the result, or the TypeError message, of the undecorated function."""
    plain = make(argument_list, kind)
    decorated = [decorate(make(argument_list, kind)) for decorate in DECORATORS]
    names = plain.__code__.co_varnames[: plain.__code__.co_argcount + plain.__code__.co_kwonlyargcount][:20]
    decorated += [track_feature("c", capture=[name])(make(argument_list, kind)) for name in names]
    for args, kwargs in CALLS:
        expected = outcome(plain, args, kwargs)
        for function in decorated:
            assert outcome(function, args, kwargs) == expected


@st.composite
def argument_lists(draw: st.DrawFn) -> tuple[str, list[str]]:
    """Argument lists with up to three arguments of each sort, and their names."""
    names = draw(st.permutations(["a", "b", "c", "ts", "py", "_0", "_1", "ts_function", "self", "args", "é"]))
    sizes = [draw(st.integers(0, 3)) for _ in range(3)]
    defaults = draw(st.integers(0, sizes[0] + sizes[1]))
    parts: list[str] = []
    for index in range(sizes[0] + sizes[1]):
        has_default = index >= sizes[0] + sizes[1] - defaults
        parts.append(names[index] + (f"={index}" if has_default else ""))
        if index + 1 == sizes[0]:
            parts.append("/")
    if draw(st.booleans()):
        parts.append("*rest")
    elif sizes[2]:
        parts.append("*")
    parts += [name + draw(st.sampled_from(["", "=7"])) for name in names[sizes[0] + sizes[1] : sum(sizes)]]
    if draw(st.booleans()):
        parts.append("**more")
    return ", ".join(parts), names[: sum(sizes)]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(argument_lists(), st.data())
def test_random_argument_lists(drawn: tuple[str, list[str]], data: st.DataObject) -> None:
    """Random calls of random functions give the result, or the TypeError message, of the undecorated function."""
    argument_list, names = drawn
    kind = data.draw(st.sampled_from(["function", "generator"]))
    args = data.draw(st.lists(st.integers(), max_size=7).map(tuple))
    kwargs = data.draw(st.dictionaries(st.sampled_from([*names, "z"]), st.integers(), max_size=5))
    plain = make(argument_list, kind)
    expected = outcome(plain, args, kwargs)
    capture = track_feature("c", capture=data.draw(st.sets(st.sampled_from(names)))) if names else DECORATORS[0]
    for decorate in (*DECORATORS, capture):
        decorated = decorate(make(argument_list, kind))
        assert outcome(decorated, args, kwargs) == expected
        assert inspect.getfullargspec(decorated) == inspect.getfullargspec(plain)


def test_readers_that_do_not_follow_wrapped() -> None:
    """A closure has the defaults, argument names and argument specification of its function."""

    def function(a: int, b: int = 2, *rest: int, key: str = "k", **more: int) -> object:
        return a, b, rest, key, more

    for decorate in DECORATORS:
        decorated: Any = decorate(function)
        assert (decorated.__defaults__, decorated.__kwdefaults__) == ((2,), {"key": "k"})
        assert inspect.getfullargspec(decorated) == inspect.getfullargspec(function)
        called = {"a": 1, "b": 2, "rest": (), "key": "k", "more": {}}
        assert inspect.getcallargs(decorated, 1) == called
        code = decorated.__code__
        assert (code.co_argcount, code.co_kwonlyargcount, code.co_varnames[:5]) == (
            2,
            1,
            ("a", "b", "key", "rest", "more"),
        )


def test_defaults_can_be_changed() -> None:
    """Assigning the defaults of a closure has the effect that it has on a function, and none on the original."""

    def function(a: int = 1, *, b: int = 2) -> tuple[int, int]:
        return a, b

    decorated: Any = track_feature("f", on="always")(function)
    decorated.__defaults__ = (5,)
    decorated.__kwdefaults__["b"] = 6
    assert (decorated(), function()) == ((5, 6), (1, 2))


def module_with(code: str, **names: object) -> types.ModuleType:
    """Return a new module that is not among the loaded modules."""
    module = types.ModuleType("application")
    vars(module).update(names)
    exec(code, vars(module))  # noqa: S102
    return module


@pytest.mark.usefixtures("acting")
def test_globals_are_the_functions(inspector: Inspector) -> None:
    """A closure runs in the globals of its function, and reads none of them."""
    code = """
len = type = next = isinstance = BaseException = Exception = StopIteration = StopAsyncIteration = None
ts = py = time_ns = append = current = buffer = None
def function(a): return a
async def coroutine(a): return a
def rows(a): yield a
async def stream(a): yield a
"""
    for decorate in (track_feature("f", on="always"), track_feature("g", capture="a"), user_context("u"), suppress()):
        module = module_with(code)
        for name in ("function", "coroutine", "rows", "stream"):
            decorated = decorate(getattr(module, name))
            assert decorated.__globals__ is vars(module)
            assert outcome(decorated, (1,), {}) == 1
    assert len(arrived(inspector)) == 8


def test_string_annotations_resolve() -> None:
    """Readers of annotations find the names of the function's module, as FastAPI does by `__globals__`."""
    code = """
from __future__ import annotations
class Query: ...
def endpoint(query: Query, limit: int = 3) -> Query: return query
async def other(query: Query) -> list[Query]: return [query]
"""
    for decorate in DECORATORS:
        module: Any = module_with(code)
        for name in ("endpoint", "other"):
            decorated = decorate(getattr(module, name))
            by_globals = {
                parameter.name: eval(parameter.annotation, decorated.__globals__)  # noqa: S307
                for parameter in inspect.signature(decorated).parameters.values()
            }
            assert by_globals["query"] is module.Query
            assert typing.get_type_hints(decorated)["query"] is module.Query
            hints = inspect.signature(decorated, eval_str=True).parameters
            assert hints["query"].annotation is module.Query
            assert inspect.get_annotations(decorated, eval_str=True)["query"] is module.Query


def test_frames_are_skipped_by_module_name() -> None:
    """A library that looks for the first frame outside of its own module skips the closure, too."""
    code = """
import sys
@decorate
def public():
    frame = sys._getframe()
    while frame.f_globals["__name__"] == __name__: frame = frame.f_back
    return frame.f_globals["__name__"]
"""
    for decorate in DECORATORS:
        assert module_with(code, decorate=decorate).public() == __name__


@pytest.mark.parametrize(
    "decorator", ['track_feature("f", on="always", capture=["x"])', 'user_context("u")', "suppress()"]
)
def test_pickling_by_value(decorator: str, inspector: Inspector) -> None:
    """A closure that cloudpickle sends to another process works there, and records its events."""
    send = f"""
import cloudpickle
from ts_autotrack import track_feature, user_context, suppress
def outer():
    factor = 3
    @{decorator}
    def inner(x, *, y=1): return factor * x + y
    @{decorator}
    async def coroutine(x): return factor * x
    @{decorator}
    def rows(x): yield factor * x
    class Model:
        @{decorator}
        def predict(self, x): return factor * x
    return inner, coroutine, rows, Model()
print(cloudpickle.dumps(outer()).hex())
"""
    receive = """
import asyncio, cloudpickle, ts_autotrack
inner, coroutine, rows, model = cloudpickle.loads(bytes.fromhex({hex!r}))
with ts_autotrack.user_context("u"):
    print(inner(2), inner(2, y=5), asyncio.run(coroutine(1)), list(rows(1)), model.predict(2))
ts_autotrack.flush(10)
"""
    sent = run_python(send)
    assert sent.returncode == 0, sent.stderr
    done = run_python(
        receive.format(hex=sent.stdout.strip()), THRIVESTACK_ENDPOINT=inspector.endpoint, THRIVESTACK_API_KEY="test"
    )
    assert (done.returncode, done.stdout) == (0, "7 11 3 [3] 6\n"), done.stderr
    expected = [2, 2, 1, 1, 2] if "track_feature" in decorator else []
    assert [item["properties"]["x"] for item in inspector.items()] == expected


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="watched, not wrapped: a copy by value is not tracked")
def test_plain_tracked_function_is_pickled_by_value(inspector: Inspector) -> None:
    """A function tracked without further options is still tracked after cloudpickle has sent it to a process."""
    code = """
import cloudpickle, pickle, ts_autotrack
def outer():
    @ts_autotrack.track_feature("f")
    def inner(x): return x
    return inner
copy = pickle.loads(cloudpickle.dumps(outer()))
with ts_autotrack.user_context("u"): print(copy(2))
ts_autotrack.flush(10)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint, THRIVESTACK_API_KEY="test")
    assert done.stdout == "2\n", done.stderr
    assert len(inspector.items()) == 1


def test_pickling_by_name() -> None:
    """A closure that its module holds under its name is pickled as this name."""
    assert pickle.loads(pickle.dumps(subjects.module_level)) is subjects.module_level  # noqa: S301


@pytest.mark.usefixtures("acting")
def test_deep_recursion(inspector: Inspector) -> None:
    """Each call of a recursive function counts."""

    @track_feature("deep", on="always")
    def deep(depth: int) -> int:
        return deep(depth - 1) + 1 if depth else 0

    assert deep(300) == 300
    assert len(arrived(inspector)) == 301


def test_closures_leave_nothing_behind() -> None:
    """A thousand functions are collected with their closures; functions alike share one compiled template."""
    decorate = track_feature("f", on="always", capture=["a0"])
    lists = [", ".join(f"a{index}" for index in range(1, size)) for size in range(1, 21)]

    def decorated() -> list[weakref.ref[Any]]:
        references: list[weakref.ref[Any]] = []
        for number in range(1000):
            function = make(f"a0, {lists[number % 20]}")
            references += [weakref.ref(function), weakref.ref(decorate(function)), weakref.ref(function.__code__)]
        return references

    decorated()
    known = len(closures._codes)
    references = decorated()
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []
    assert len(closures._codes) == known
