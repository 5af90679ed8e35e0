"""Measure the cost of a contender beside the floors, in its own process.

    python -m tests.benchmarks._probe NAME URL ROUNDS     prints a JSON object with a list for each figure

Caller's times are the times of single calls during delivery, less the time of reading the clock. CPU is the CPU time
of the whole process, from the first call until the last arrival at the sink, per arrived event. The floors are
measured with `EVENTS` events for every contender.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from importlib import metadata
from typing import TYPE_CHECKING

from tests.benchmarks._contenders import ALL, Started, caller_floor, delivery_floor
from tests.benchmarks._sink import arrived

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = 2_000
"""Events of a round: the smallest queue of all contenders holds 2,048."""
SLOW = {"vendor's helper": 100}
"""Events of a round for contenders with a millisecond per event."""
WARM_UP = 10
CHUNK, PAUSE = 200, 0.001
"""Calls between two rests of the caller, and seconds of a rest. Handlers of requests rest likewise, and delivery goes
on.
"""


def caller(subject: Started, events: int) -> list[int]:
    """Return the nanoseconds of each call, sorted."""
    clock, call = time.perf_counter_ns, subject.call
    nothing = sorted(-(clock() - clock()) for _ in range(1_000))[500]
    times = []
    for start in range(0, events, CHUNK):
        for _ in range(min(CHUNK, events - start)):
            began = clock()
            call()
            times.append(clock() - began - nothing)
        time.sleep(PAUSE)
    subject.finish()
    return sorted(times)


def cpu(deliver: Callable[[int], object], events: int, url: str) -> tuple[float, int]:
    """Return the CPU microseconds of the process per arrived event, and the number of arrived events."""
    before = arrived(url)
    began = time.process_time_ns()
    deliver(events)
    asking = time.thread_time_ns()
    count = arrived(url, before + events) - before
    asked = time.thread_time_ns() - asking
    return (time.process_time_ns() - began - asked) / max(count, 1) / 1e3, count


def at(times: list[int], percent: int) -> float:
    """Return a percentile of the sorted `times`, in microseconds."""
    return times[len(times) * percent // 100] / 1e3


def measure(name: str, url: str, rounds: int) -> dict[str, object]:
    """Return the figures of the contender and the floors in microseconds, and the lost share, for each round."""
    logging.disable()  # the contenders' log output would be measured, too
    contender, floor, deliver = ALL[name].start(url), caller_floor(), delivery_floor(url)
    events = SLOW.get(name, EVENTS)
    found: dict[str, list[float]] = {figure: [] for figure in ("C", "D", "p50", "p99", "cpu", "lost")}
    for warm_up in (contender.deliver, floor.deliver, deliver):
        warm_up(WARM_UP)
    for _ in range(rounds):
        gc.collect()
        found["C"].append(at(caller(floor, EVENTS), 50))
        found["D"].append(cpu(deliver, EVENTS, url)[0])
        before = arrived(url)
        times = caller(contender, events)
        came = arrived(url, before + events) - before
        found["p50"].append(at(times, 50))
        found["p99"].append(at(times, 99))
        each, came_then = cpu(contender.deliver, events, url)
        found["cpu"].append(each)
        found["lost"].append(1 - (came + came_then) / (2 * events))
    return {"version": metadata.version(ALL[name].packages[0]), **found}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # `_script` measures the time to exit
