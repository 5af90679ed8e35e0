"""Measure the cost of tracking under load.

    python -m tests.benchmarks._load PART URL     prints a JSON object of lists

Each part runs in its own process.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import os
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from tests.benchmarks import _probe
from tests.benchmarks._contenders import GROUP, USER, caller_floor, ts_autotrack
from tests.benchmarks._sink import arrived
from ts_autotrack import configure, flush, stats, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Callable

    Found = dict[str, list[float]]
    Identified = Callable[[], AbstractContextManager[Any]]

ROUNDS = 5
BURST = 50_000
"""Events tracked in a row at default settings, with which 100,000 may wait."""
BACKLOG = 1_000
"""Least number of waiting events while "a backlog is delivered"."""
REQUESTS, EVENTS_EACH = 10_000, 5
"""Number of requests, each of another user, and number of events per request. Threads or tasks share the requests."""
NOBODY = "http://127.0.0.1:9"
"""URL without a listener: the port of "discard"."""


def resident() -> float:
    """Return this process's resident memory, in bytes."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bare() -> None:
    """Do nothing."""


tracked = track_feature("benchmark_feature", feature_type="core")(bare)


def at_full_speed(url: str) -> Found:
    """Measure single calls while the worker delivers a backlog, beside floor C; microseconds.

    Also measure a thread's delay after a rest: the worker has to release the interpreter first.
    """
    ours, floor = ts_autotrack(url), caller_floor()
    found: Found = {"C": [], "p50": [], "p99": [], "worst": [], "late p50": [], "late p90": []}
    for _ in range(ROUNDS):
        found["C"].append(_probe.at(_probe.caller(floor, 5_000), 50))
        for _ in range(BURST):
            ours.call()
        times = _probe.caller(ours, 10_000)  # includes 50 pauses of 1 ms, during which the worker delivers
        found["p50"].append(_probe.at(times, 50))
        found["p99"].append(_probe.at(times, 99))
        found["worst"].append(times[-1] / 1e3)
        idle = _rests(bare, lambda done: done < 100)
        for _ in range(BURST):
            ours.call()
        busy = _rests(ours.call, lambda _: stats().pending > BACKLOG)
        ours.finish()
        for percent in (50, 90):
            found[f"late p{percent}"].append(_probe.at(busy, percent) - _probe.at(idle, percent))
    return found


def _rests(call: Callable[[], object], go_on: Callable[[int], bool]) -> list[int]:
    """Return the sorted nanoseconds of each rest and the following call; `go_on` gets the number of rests so far."""
    times: list[int] = []
    while go_on(len(times)):
        began = time.perf_counter_ns()
        time.sleep(_probe.PAUSE)
        call()
        times.append(time.perf_counter_ns() - began)
    return sorted(times)


def bursts(url: str) -> Found:
    """Return the arrived share of 50,000 events tracked in a tight loop, and of 8 x 5,000 events from threads."""
    configure(endpoint=url, api_key="k")

    def many(events: int) -> None:
        with user_context(USER, group_id=GROUP):
            for _ in range(events):
                tracked()

    before = arrived(url)
    many(BURST)
    flush(60)
    loop = arrived(url, before + BURST)
    threads = [threading.Thread(target=many, args=(5_000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush(60)
    return {"loop": [(loop - before) / BURST], "threads": [(arrived(url, loop + 40_000) - loop) / 40_000]}


def pending(url: str) -> Found:
    """Return the bytes of a waiting event, out of 95,000 events without a server."""
    del url
    logging.disable()
    ours = ts_autotrack(NOBODY)
    for _ in range(5_000):  # as many as wait encoded, and some more
        ours.call()
    time.sleep(1)
    gc.collect()
    before, waited = resident(), stats().pending
    for _ in range(90_000):
        ours.call()
    time.sleep(1)
    return {"bytes": [(resident() - before) / (stats().pending - waited)]}


def million(url: str) -> Found:
    """Return the resident bytes after each of ten times 100,000 delivered events, less the bytes after the first
    100,000.
    """
    ours = ts_autotrack(url)
    sizes = []
    for _ in range(11):
        for _ in range(10):
            for _ in range(10_000):
                ours.call()
            ours.finish()
        gc.collect()
        sizes.append(resident())
    return {"bytes": [size - sizes[0] for size in sizes[1:]]}


def _cost(url: str, run: Callable[[int, Identified, Callable[[], None]], None], counts: tuple[int, ...]) -> Found:
    """Return the CPU microseconds of an arrived event for each concurrency, identity and delivery included.

    The cost of the same work without tracking is subtracted.
    """
    configure(endpoint=url, api_key="k")
    numbers = itertools.count()

    def identified() -> AbstractContextManager[Any]:
        number = next(numbers)
        return user_context(f"user_{number}", group_id=f"account_{number % 100}", user_email="jane@example.com")

    def spent(count: int, who: Identified, call: Callable[[], None]) -> int:
        gc.collect()
        began = time.process_time_ns()
        run(count, who, call)
        flush(60)
        return time.process_time_ns() - began

    found: Found = {str(count): [] for count in counts}
    for number in range(ROUNDS + 1):
        for count in counts:
            before = arrived(url)
            cost = spent(count, identified, tracked) - spent(count, nullcontext, bare)
            came = arrived(url, before + REQUESTS // count * count * EVENTS_EACH) - before
            if number:  # the first round warms up
                found[str(count)].append(cost / came / 1e3)
    return found


def over_threads(url: str) -> Found:
    """Measure `_cost` with 1 to 64 threads."""

    def run(count: int, identified: Identified, call: Callable[[], None]) -> None:
        def work() -> None:
            for _ in range(REQUESTS // count):
                with identified():
                    for _ in range(EVENTS_EACH):
                        call()

        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return _cost(url, run, (1, 8, 64))


def over_tasks(url: str) -> Found:
    """Measure `_cost` with 1 to 10,000 tasks; each task yields to the others after each call."""

    def run(count: int, identified: Identified, call: Callable[[], None]) -> None:
        async def work() -> None:
            for _ in range(REQUESTS // count):
                with identified():
                    for _ in range(EVENTS_EACH):
                        call()
                        await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(*(work() for _ in range(count)))

        asyncio.run(main())

    return _cost(url, run, (1, 100, 10_000))


def sharing(url: str) -> Found:
    """Measure calls in four processes at once, in memory and with a shared outbox; microseconds at p50 and p99."""
    found: Found = {"memory p50": [], "memory p99": [], "outbox p50": [], "outbox p99": []}
    with tempfile.TemporaryDirectory() as outbox:
        for _ in range(ROUNDS):
            for kept, directory in (("memory", None), ("outbox", outbox)):
                for figure, microseconds in _four(url, directory).items():
                    found[f"{kept} {figure}"].append(microseconds)
    return found


def _four(url: str, outbox: str | None) -> dict[str, float]:
    ends: list[tuple[int, int]] = []
    for _ in range(4):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            ours = ts_autotrack(url, outbox=outbox)
            ours.call()
            ours.finish()
            times = _probe.caller(ours, 5_000)
            os.write(writing, json.dumps({"p50": _probe.at(times, 50), "p99": _probe.at(times, 99)}).encode())
            from ts_autotrack import shutdown  # noqa: PLC0415

            shutdown(5)
            os._exit(0)
        os.close(writing)
        ends.append((child, reading))
    seen = []
    for child, reading in ends:
        with os.fdopen(reading) as pipe:
            seen.append(json.load(pipe))
        os.waitpid(child, 0)
    return {percent: sum(each[percent] for each in seen) / len(seen) for percent in ("p50", "p99")}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(globals()[sys.argv[1]](sys.argv[2])))
    sys.stdout.flush()
    os._exit(0)
