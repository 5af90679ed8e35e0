"""What one contender costs beside the floors, in a process of its own.

    python -m tests.benchmarks._probe NAME URL ROUNDS EVENTS     prints a JSON object with a list for each figure

Caller's times are of each single call while delivery goes on beside it, less what reading the clock takes. CPU is that
of the whole process, from the first call to the last answer.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from importlib import metadata

from tests.benchmarks._contenders import ALL, Started, floors

WARM_UP = 10
CHUNK, PAUSE = 200, 0.001
"""After so many calls the caller rests for so many seconds, as handlers of requests do: delivery goes on beside it."""


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


def cpu(subject: Started, events: int) -> float:
    """Return the microseconds of CPU that the process needs for an event, from the call to the answer."""
    call = subject.call
    began = time.process_time_ns()
    for _ in range(events):
        call()
    subject.finish()
    return (time.process_time_ns() - began) / events / 1e3


def at(times: list[int], percent: int) -> float:
    """Return the time, in microseconds, that so many percent of `times`, which are sorted, do not exceed."""
    return times[len(times) * percent // 100] / 1e3


def measure(name: str, url: str, rounds: int, events: int) -> dict[str, object]:
    """Return the contender's figures and the floors', in microseconds: one of each for each round."""
    logging.disable()  # what they have to say would be measured, too
    contender, floor = ALL[name].start(url), floors(url)
    found: dict[str, list[float]] = {figure: [] for figure in ("C", "D", "p50", "p99", "cpu")}
    for subject in (contender, floor):
        for _ in range(WARM_UP):
            subject.call()
        subject.finish()
    for _ in range(rounds):
        gc.collect()
        found["C"].append(at(caller(floor, events), 50))
        found["D"].append(cpu(floor, events))
        times = caller(contender, events)
        found["p50"].append(at(times, 50))
        found["p99"].append(at(times, 99))
        found["cpu"].append(cpu(contender, events))
    return {"version": metadata.version(ALL[name].packages[0]), **found}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # how long they take to end is measured by `_script`
