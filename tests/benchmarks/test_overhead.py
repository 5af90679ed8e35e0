"""What a tracked call adds on the caller's path, and what a delivered event costs the process.

    python -m pytest tests/benchmarks --benchmark-only

Everything is compared within one run, by medians of interleaved rounds: absolute times say more of the machine.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import operator
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
import wrapt

from ts_autotrack import configure, flush, stats, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS, CALLS = 15, 2_000
EVENTS, BATCH = 5_000, 500


@pytest.fixture(scope="module")
def sink() -> Iterator[str]:
    """The URL of a server that accepts everything, in a process of its own."""
    command = [sys.executable, str(Path(__file__).parent / "_sink.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.terminate()


@pytest.fixture(autouse=True)
def acting(sink: str) -> Iterator[None]:
    """Somebody acts, and events are delivered as in production."""
    configure(endpoint=sink, api_key="k", max_queue=1_000_000)
    with user_context("user_1", group_id="account_1", user_email="a@example.com", device_type="desktop"):
        yield


def closure(function: Callable[..., Any]) -> Callable[..., Any]:
    """The least that a decorator can do."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


@wrapt.decorator
def proxy(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    """The least that a wrapt decorator can do."""
    return wrapped(*args, **kwargs)


def empty() -> None:
    """Do nothing."""


async def empty_coroutine() -> None:
    """Do nothing."""


class Plain:
    """A method in each of its forms."""

    def bare(self) -> None:
        """Do nothing."""

    closure = closure(bare)
    wrapt = proxy(bare)
    tracked = track_feature("benchmark")(bare)


def run_calls(function: Callable[[], Any]) -> float:
    """Return the nanoseconds of one call."""
    began = time.perf_counter_ns()
    for _ in range(CALLS):
        function()
    return (time.perf_counter_ns() - began) / CALLS


def run_coroutine(function: Callable[[], Any]) -> float:
    """Return the nanoseconds of one awaited call."""

    async def loop() -> float:
        began = time.perf_counter_ns()
        for _ in range(CALLS):
            await function()
        return (time.perf_counter_ns() - began) / CALLS

    return asyncio.run(loop())


METHODS = ("bare", "closure", "wrapt", "tracked")
plain = Plain()
CALLERS: dict[str, tuple[Callable[[Any], float], dict[str, Any]]] = {
    "function": (
        run_calls,
        {"bare": empty, "closure": closure(empty), "wrapt": proxy(empty), "tracked": track_feature("b")(empty)},
    ),
    "method": (
        run_calls,
        {name: functools.partial(operator.methodcaller(name), plain) for name in METHODS},  # binding is part of it
    ),
    "coroutine": (
        run_coroutine,
        {
            "bare": empty_coroutine,
            "closure": closure(empty_coroutine),
            "wrapt": proxy(empty_coroutine),
            "tracked": track_feature("b")(empty_coroutine),
        },
    ),
}


def added(kind: str) -> dict[str, float]:
    """Return the nanoseconds that each decorator adds to a call, from interleaved rounds."""
    run, contenders = CALLERS[kind]
    rounds: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    for _ in range(ROUNDS):
        for name, function in contenders.items():
            rounds[name].append(run(function))
        flush(10)
    middle = {name: median(values) for name, values in rounds.items()}
    return {name: middle[name] - middle["bare"] for name in contenders if name != "bare"}


@pytest.mark.parametrize("kind", CALLERS)
def test_tracking_adds_less_than_a_wrapt_decorator_that_does_nothing(benchmark: Any, kind: str) -> None:
    """A tracked call costs less than an empty wrapt decorator."""
    cost = benchmark.pedantic(added, args=(kind,), rounds=1)
    benchmark.extra_info.update({name: round(value) for name, value in cost.items()})
    print(f"\nadded to a {kind}, ns: " + ", ".join(f"{name} {value:.0f}" for name, value in cost.items()))
    assert cost["tracked"] < cost["wrapt"], cost


def deliver_floor(sink: str, items: list[dict[str, Any]]) -> float:
    """Return the CPU seconds of the least that a sender can do with ready-made dicts."""
    with httpx.Client(headers={"x-api-key": "k", "content-type": "application/json"}) as client:
        client.post(f"{sink}/track", content=b"[]")
        began = time.process_time()
        for start in range(0, len(items), BATCH):
            client.post(f"{sink}/track", content=orjson.dumps(items[start : start + BATCH]))
        return time.process_time() - began


@track_feature("benchmark", feature_type="core")
def tracked() -> None:
    """Do nothing."""


def deliver_tracked() -> float:
    """Return the CPU seconds of calls from capture to delivery."""
    tracked()
    flush(10)
    began = time.process_time()
    for _ in range(EVENTS):
        tracked()
    flush(30)
    return time.process_time() - began


def delivery(sink: str) -> tuple[float, float]:
    """Return the CPU microseconds of a delivered event: ours, and the floor's."""
    kept: deque[dict[str, Any]] = deque(maxlen=EVENTS)
    item = {
        "event_name": "feature_used",
        "properties": {
            "user_email": "a@example.com",
            "feature_name": "benchmark",
            "feature_type": "core",
            "action": "x",
        },
        "user_id": "user_1",
        "timestamp": "2024-10-20T15:51:36.514000Z",
        "context": {
            "source": "product",
            "device_type": "desktop",
            "event_id": "0123456789abcdef-00000001",
            "group_id": "a",
        },
    }
    for number in range(EVENTS):
        kept.append({**item, "context": {**item["context"], "event_id": f"0123456789abcdef-{number:08x}"}})  # type: ignore[dict-item]
    rounds = [(deliver_tracked(), deliver_floor(sink, list(kept))) for _ in range(ROUNDS)]
    ours, floor = (median(column) for column in zip(*rounds, strict=True))
    return ours / EVENTS * 1e6, floor / EVENTS * 1e6


def test_delivery_costs_little_more_than_encoding_and_sending(benchmark: Any, sink: str) -> None:
    """Capture, build, encode, send and account cost at most 2.5 times what encoding and sending alone do."""
    ours, floor = benchmark.pedantic(delivery, args=(sink,), rounds=1)
    benchmark.extra_info.update(ours=round(ours, 2), floor=round(floor, 2), ratio=round(ours / floor, 2))
    print(f"\nCPU of a delivered event, us: {ours:.2f}; floor {floor:.2f}; ratio {ours / floor:.2f}")
    assert not stats().dropped
    assert ours < 2.5 * floor
