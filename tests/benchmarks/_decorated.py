"""Measure decorated functions of one interpreter beside a closure with the same work. Needs the standard library only.

    python -m tests.benchmarks._decorated ROUNDS     prints a JSON object with a list for each figure

The closure takes `*args, **kwargs` and appends the same record; before Python 3.12 every tracked function has one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from ts_autotrack import track_feature, user_context
from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.capture.call import finish_call
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.capture.stack import additions
from ts_autotrack._core.identity.scope import current

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

CALLS, REPEATS = 5_000, 7
TEMPLATE: Any = EventTemplate("/track", "feature_used", {"feature_name": "benchmark"}, "")


def function(value: object, option: int = 2) -> object:  # noqa: ARG001 - an argument list as others have
    """Return the value."""
    return value


async def coroutine(value: object, option: int = 2) -> object:  # noqa: ARG001 - likewise
    """Return the value."""
    return value


def closure(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return the closure around a function."""

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            result = inner(*args, **kwargs) if kwargs else inner(*args)
        except BaseException:
            finish_call(TEMPLATE, None, None)
            raise
        scope = current()
        if scope.ready and len(buffer.records) < buffer.append_limit and not additions:
            buffer.records.append((TEMPLATE, scope, time.time_ns(), None))
        return result

    return call


def async_closure(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Return the closure around a coroutine function."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            awaitable = inner(*args, **kwargs) if kwargs else inner(*args)
            del args, kwargs
            result = await awaitable
        except BaseException:
            finish_call(TEMPLATE, None, None)
            raise
        scope = current()
        if scope.ready and len(buffer.records) < buffer.append_limit and not additions:
            buffer.records.append((TEMPLATE, scope, time.time_ns(), None))
        return result

    return call


def of_function(call: Callable[..., Any]) -> float:
    """Return the nanoseconds of a call."""
    calls = range(CALLS)
    began = time.perf_counter_ns()
    for _ in calls:
        call(1)
    found = (time.perf_counter_ns() - began) / CALLS
    buffer.records.clear()
    return found


def of_coroutine(call: Callable[..., Any]) -> float:
    """Return the nanoseconds of an awaited call."""

    async def many() -> float:
        calls = range(CALLS)
        began = time.perf_counter_ns()
        for _ in calls:
            await call(1)
        return (time.perf_counter_ns() - began) / CALLS

    found = asyncio.run(many())
    buffer.records.clear()
    return found


def fresh(number: int) -> FunctionType:
    """Return a new function with an argument name of its own."""
    namespace: dict[str, Any] = {}
    exec(f"def made(first, second_{number}=1, *, third=None): return first", namespace)  # noqa: S102 - 1,000 functions
    made: FunctionType = namespace.pop("made")
    return made


def decorating() -> float:
    """Return the milliseconds of decorating 1,000 functions."""
    functions = [fresh(number) for number in range(1_000)]
    feature = track_feature("benchmark")
    began = time.perf_counter_ns()
    for made in functions:
        feature(made)
    return (time.perf_counter_ns() - began) / 1e6


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the figures of each round: the best of a few repeats, because a shared machine only adds time."""
    tracked, tracked_coroutine = track_feature("benchmark")(function), track_feature("benchmark")(coroutine)
    subjects: dict[str, tuple[Callable[..., float], Callable[..., Any]]] = {
        "bare": (of_function, function),
        "function": (of_function, tracked),
        "closure": (of_function, closure(function)),
        "coroutine": (of_coroutine, tracked_coroutine),
        "async closure": (of_coroutine, async_closure(coroutine)),
        "off": (of_function, tracked),
    }
    found: dict[str, list[float]] = {name: [] for name in (*subjects, "decorating")}
    with user_context("user_1", group_id="account_1"):
        for _ in range(rounds):
            best = dict.fromkeys(subjects, float("inf"))
            for _ in range(REPEATS):
                for name, (measured, call) in subjects.items():
                    if name == "off":
                        buffer.close("disabled")
                    else:
                        buffer.reopen()
                        buffer.append_limit = 10 * CALLS  # nothing is delivered here
                    measured(call) if name == "off" else None
                    best[name] = min(best[name], measured(call))
            for name, value in best.items():
                found[name].append(value)
            found["decorating"].append(min(decorating() for _ in range(3)))
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(int(sys.argv[1]))) + "\n")
