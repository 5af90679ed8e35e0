"""Measure the time added by tracking to each form of call, beside floor C.

    python -m tests.benchmarks._forms URL ROUNDS     prints a JSON object with a list for each figure

A list has the nanoseconds of each round. The time of the undecorated call is subtracted everywhere.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from tests.benchmarks._contenders import floor_call
from ts_autotrack import configure, flush, suppress, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

CALLS = 2_000

waiting: deque[Any] = deque()


def function() -> None:
    """Do nothing."""


async def coroutine() -> None:
    """Do nothing."""


def generator() -> Iterator[None]:
    """Yield nothing."""
    return
    yield


async def async_generator() -> AsyncIterator[None]:
    """Yield nothing."""
    return
    yield


def export(rows: int, file_format: str) -> None:
    """Do nothing with two arguments."""
    del rows, file_format


class Plain:
    """Methods."""

    def bare(self) -> None:
        """Do nothing."""

    tracked = track_feature("benchmark")(bare)


plain = Plain()


def time_function(call: Callable[[], object]) -> float:
    """Return the nanoseconds of a call."""
    calls = range(CALLS)
    began = time.perf_counter_ns()
    for _ in calls:
        call()
    return (time.perf_counter_ns() - began) / CALLS


def time_arguments(call: Callable[[int, str], object]) -> float:
    """Return the nanoseconds of a call with two arguments."""
    calls = range(CALLS)
    began = time.perf_counter_ns()
    for _ in calls:
        call(3, "csv")
    return (time.perf_counter_ns() - began) / CALLS


def time_bare_method(_: object) -> float:
    """Return the nanoseconds of a method's call, binding included."""
    calls = range(CALLS)
    began = time.perf_counter_ns()
    for _ in calls:
        plain.bare()
    return (time.perf_counter_ns() - began) / CALLS


def time_tracked_method(_: object) -> float:
    """Return the nanoseconds of the tracked method's call."""
    calls = range(CALLS)
    began = time.perf_counter_ns()
    for _ in calls:
        plain.tracked()
    return (time.perf_counter_ns() - began) / CALLS


def time_coroutine(call: Callable[[], Any]) -> float:
    """Return the nanoseconds of an awaited call."""

    async def many() -> float:
        calls = range(CALLS)
        began = time.perf_counter_ns()
        for _ in calls:
            await call()
        return (time.perf_counter_ns() - began) / CALLS

    return asyncio.run(many())


def time_generator(call: Callable[[], Iterator[None]]) -> float:
    """Return the nanoseconds of a generator run to its end."""
    calls = range(CALLS)
    began = time.perf_counter_ns()
    for _ in calls:
        for _ in call():
            pass
    return (time.perf_counter_ns() - began) / CALLS


def time_async_generator(call: Callable[[], AsyncIterator[None]]) -> float:
    """Return the nanoseconds of an async generator run to its end."""

    async def many() -> float:
        calls = range(CALLS)
        began = time.perf_counter_ns()
        for _ in calls:
            async for _ in call():
                pass
        return (time.perf_counter_ns() - began) / CALLS

    return asyncio.run(many())


def time_suppressed(call: Callable[[], object]) -> float:
    """Return the nanoseconds of a call inside `suppress()`."""
    with suppress():
        return time_function(call)


def time_disabled(call: Callable[[], object]) -> float:
    """Return the nanoseconds of a call while the library is disabled."""
    configure(disabled=True)
    try:
        return time_function(call)
    finally:
        configure(disabled=False)


tracked = track_feature("benchmark")(function)
captured = track_feature("benchmark", capture=["rows", "file_format"], properties={"a": 1, "b": "two", "c": True})
Form = tuple["Callable[[Any], float]", Any, "Callable[[Any], float]", Any]
FORMS: dict[str, Form] = {
    "C": (time_function, floor_call(waiting, function), time_function, function),
    "function": (time_function, tracked, time_function, function),
    "method": (time_tracked_method, None, time_bare_method, None),
    "coroutine": (time_coroutine, track_feature("benchmark")(coroutine), time_coroutine, coroutine),
    "generator": (time_generator, track_feature("benchmark")(generator), time_generator, generator),
    "async generator": (
        time_async_generator,
        track_feature("benchmark")(async_generator),
        time_async_generator,
        async_generator,
    ),
    "two arguments captured, three properties": (time_arguments, captured(export), time_arguments, export),
    "suppressed": (time_suppressed, tracked, time_function, function),
    "disabled": (time_disabled, tracked, time_function, function),
}


def main(url: str, rounds: int) -> None:
    """Measure the forms in turn and print the results."""
    configure(endpoint=url, api_key="k")
    found: dict[str, list[float]] = {name: [] for name in FORMS}
    with user_context("user_1", group_id="account_1", user_email="jane@example.com", device_type="mobile"):
        for number in range(rounds + 1):
            gc.collect()
            for name, (run, subject, run_bare, bare) in FORMS.items():
                added = run(subject) - run_bare(bare)
                if number:  # the first round warms up
                    found[name].append(added)
                flush(10)
                waiting.clear()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
