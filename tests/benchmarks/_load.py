"""What tracking costs under load: `python -m tests.benchmarks._load WHAT URL` prints a JSON object of lists.

Each of these runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.benchmarks import _probe
from tests.benchmarks._contenders import Started, floors, ts_autotrack

if TYPE_CHECKING:
    from collections.abc import Callable

Found = dict[str, list[float]]

BURST = 50_000
"""Events that are tracked in one go at default settings, where 100,000 may wait."""
REQUESTS, EVENTS_EACH = 4_000, 5
"""Requests of as many users, and the events of each, that are spread over threads or tasks."""
ROUNDS = 5


def resident() -> float:
    """Return this process's resident memory, in bytes."""
    with open("/proc/self/statm") as file:  # noqa: PTH123 - nothing is to be imported
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def at_full_speed(url: str) -> Found:
    """Single calls while the worker has a backlog to deliver: p50, p99 and the worst, beside floor C; microseconds."""
    ours, floor = ts_autotrack(url), floors(url)
    found: Found = {"C": [], "p50": [], "p99": [], "worst": []}
    for _ in range(ROUNDS):
        found["C"].append(_probe.at(_probe.caller(floor, 5_000), 50))
        for _ in range(BURST):
            ours.call()
        times = _probe.caller(ours, 10_000)  # 50 pauses of 1 ms: the worker is at it all the time
        found["p50"].append(_probe.at(times, 50))
        found["p99"].append(_probe.at(times, 99))
        found["worst"].append(times[-1] / 1e3)
    return found


def bursts(url: str) -> Found:
    """What becomes of 50,000 events tracked in a tight loop, and of 8 x 5,000 from threads."""
    from ts_autotrack import stats  # noqa: PLC0415

    ours = ts_autotrack(url)
    found: Found = {"tracked": [], "delivered": []}

    def many(events: int) -> None:
        for _ in range(events):
            ours.call()

    def threads() -> None:
        started = [threading.Thread(target=many, args=(5_000,)) for _ in range(8)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    tracked = 0
    for run, events in ((lambda: many(BURST), BURST), (threads, 40_000)):
        run()
        ours.finish()
        tracked += events
        found["tracked"].append(tracked)
        found["delivered"].append(stats().delivered)
    return found


def pending(url: str) -> Found:
    """Bytes that an event takes while it waits, of 100,000 that cannot be delivered."""
    del url
    from ts_autotrack import stats  # noqa: PLC0415

    ours = ts_autotrack("http://127.0.0.1:9")  # nobody listens on the port of "discard"
    for _ in range(5_000):  # as many as wait encoded, and some
        ours.call()
    time.sleep(1)
    gc.collect()
    before, waited = resident(), stats().pending
    for _ in range(90_000):
        ours.call()
    time.sleep(1)
    return {"bytes": [(resident() - before) / (stats().pending - waited)]}


def footprint(url: str) -> Found:
    """Bytes that import and first delivery add to a process that has just started, and to one that uses httpx."""
    if "httpx" in os.environ.get("BENCHMARK_LOADED", ""):
        import httpx  # noqa: PLC0415

        httpx.Client().post(f"{url}/track", content=b"[]")
    before = resident()
    import ts_autotrack as package  # noqa: PLC0415

    package.configure(endpoint=url, api_key="k")
    package.track("benchmark_feature", user_id="u", group_id="g")
    package.flush(10)
    return {"bytes": [resident() - before]}


def million(url: str) -> Found:
    """Bytes of resident memory after each of ten times 100,000 delivered events."""
    ours = ts_autotrack(url)
    found: Found = {"bytes": []}
    for _ in range(11):
        for _ in range(10):
            for _ in range(10_000):
                ours.call()
            ours.finish()
        gc.collect()
        found["bytes"].append(resident())
    return found


def _requests(url: str, run: Callable[[int, Callable[[str], Any], Any], None], counts: tuple[int, ...]) -> Found:
    """Return the CPU microseconds of an event, identity and delivery included, for each concurrency."""
    from ts_autotrack import user_context  # noqa: PLC0415

    ours = ts_autotrack(url)
    numbers = itertools.count()

    def identified(_: str) -> Any:
        number = next(numbers)
        return user_context(f"user_{number}", group_id=f"account_{number % 100}", user_email="jane@example.com")

    found: Found = {str(count): [] for count in counts}
    for number in range(ROUNDS + 1):
        for count in counts:
            spent = []
            for tracked in (True, False):
                gc.collect()
                began = time.process_time_ns()
                run(count, identified if tracked else (lambda _: threading.Lock()), ours if tracked else None)
                if tracked:
                    ours.finish()
                spent.append(time.process_time_ns() - began)
            if number:
                found[str(count)].append((spent[0] - spent[1]) / REQUESTS / EVENTS_EACH / 1e3)
    return found


def bare() -> None:
    """Do nothing."""


def over_threads(url: str) -> Found:
    """See `_requests`."""

    def run(count: int, identified: Callable[[str], Any], ours: Started | None) -> None:
        call = ours.call if ours else bare

        def work() -> None:
            for _ in range(REQUESTS // count):
                with identified(""):
                    for _ in range(EVENTS_EACH):
                        call()

        started = [threading.Thread(target=work) for _ in range(count)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    return _requests(url, run, (1, 8, 64))


def over_tasks(url: str) -> Found:
    """See `_requests`; each task gives way to the others after each call."""

    def run(count: int, identified: Callable[[str], Any], ours: Started | None) -> None:
        call = ours.call if ours else bare

        async def work() -> None:
            for _ in range(max(1, REQUESTS // count)):
                with identified(""):
                    for _ in range(EVENTS_EACH):
                        call()
                        await asyncio.sleep(0)

        async def main() -> None:
            await asyncio.gather(*(work() for _ in range(count)))

        asyncio.run(main())

    return _requests(url, run, (1, 100, 4_000))


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2])), flush=True)
    os._exit(0)
