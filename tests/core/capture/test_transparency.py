"""Decoration changes nothing a program can see: metadata, pickles, tracebacks, lifetimes, stack depth."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import functools
import gc
import inspect
import pickle
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from tests.core.conftest import arrived, frames_of_ours
from tests.core.subjects import Shop, cached, module_level, module_partial
from ts_autotrack import suppress, track_feature, user_context
from ts_autotrack._core import diagnostics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


def test_signature_and_metadata_survive() -> None:
    """Name, docstring, signature, annotations, defaults and argument list are the function's own."""

    def original(a: int, *, b: str = "x") -> list[str]:
        """Say something."""
        return [b] * a

    tracked = track_feature("f")(original)
    assert inspect.signature(tracked) == inspect.signature(original)
    assert (tracked.__name__, tracked.__doc__, tracked.__module__) == ("original", "Say something.", __name__)
    assert inspect.unwrap(tracked) is original
    assert inspect.getfullargspec(tracked) == inspect.getfullargspec(original)
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


def test_cached_function_is_pickled_by_name() -> None:
    """A function found by its name is pickled by name, and copies are the function itself."""
    assert pickle.loads(pickle.dumps(cached)) is cached  # noqa: S301
    assert copy.copy(cached) is cached
    assert copy.deepcopy(cached) is cached


@pytest.mark.slow
def test_decorated_function_works_in_a_spawned_process() -> None:
    """A decorated function can be sent to a process pool with spawned workers."""
    code = """
import sys; sys.path.insert(0, {path!r})
import multiprocessing
from tests.core.subjects import module_level, module_partial
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(module_level, [1, 2]), pool.apply(module_partial))
"""
    done = run_python(code.format(path=sys.path[0] or "."), TS_AUTOTRACK_DISABLED="1", PYTHONPATH=":".join(sys.path))
    assert done.stdout.strip() == "[1, 2] 3", done.stderr


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
    deepest -= 2 * (sys.gettrace() is not None)  # a tracer needs a frame, too, and on Python 3.10 two
    assert [depth for depth in range(deepest, deepest - 40, -1) if fails(tracked, depth)] == []
