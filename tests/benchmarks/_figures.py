"""The figures measured of ts_autotrack and their bounds, nearly all as ratios to a floor of the same run."""

from __future__ import annotations

from statistics import median, quantiles
from typing import NamedTuple


class Figure(NamedTuple):
    """A measured quantity.

    Attributes:
        name: Name of the figure.
        unit: Unit of the values.
        values: Measured values, in the order of the rounds.
        floors: Values of the floor in the same rounds; empty for a figure without a floor.
        floor: Name of the floor.
        most: Upper bound: of the ratio, or of the value if there are no floors.
        slack: Factor for the noise of the machine; CI fails beyond the bound times the slack.
    """

    name: str
    unit: str
    values: list[float]
    floors: list[float]
    floor: str = ""
    most: float | None = None
    slack: float = 1.0

    @property
    def median(self) -> float:
        """Median of the values."""
        return median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """Quartiles of the values."""
        return spread(self.values)

    @property
    def ratio(self) -> float | None:
        """Median of the rounds' ratios to the floor; None without floors."""
        if not self.floors:
            return None
        return median(value / floor for value, floor in zip(self.values, self.floors, strict=True))

    @property
    def compared(self) -> float:
        """The number compared with the bound: the ratio, or the median without floors."""
        return self.median if self.ratio is None else self.ratio

    @property
    def holds(self) -> bool:
        """Whether the figure is within its bound."""
        return self.most is None or self.compared <= self.most

    @property
    def fails(self) -> bool:
        """Whether the figure exceeds its bound by more than the slack."""
        return self.most is not None and self.compared > self.most * self.slack


def spread(values: list[float]) -> tuple[float, float]:
    """Return the quartiles."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


NOISY, DISK = 1.5, 2.0
"""Slack of a time, and slack of a time which includes waiting for the disk. Floor C has no such waits: 19 C, and 29 C
within the same hour.
"""
FORMS = {
    "function": 0.5,
    "method": 0.5,
    "coroutine": 0.65,
    "generator": 0.8,
    "async generator": None,
    "two arguments captured, three properties": 1.75,
    "suppressed": 0.2,
    "disabled": 0.2,
}
"""Bounds of the time added to a call by decoration, as a ratio to floor C."""


def of_ours(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """Return the figures, given the results of the benchmark's parts by the parts' names."""
    forms, speed, pending = found["forms"], found["at_full_speed"], found["pending"]["bytes"]
    memory, outbox, each = (found[f"probe {name}"] for name in ("memory", "outbox", "event"))
    ends, size, bursts = found["ends"], found["footprint"], found["bursts"]
    threads, tasks, sharing = found["over_threads"], found["over_tasks"], found["sharing"]
    lost = [*memory["lost"], *outbox["lost"], *each["lost"]]
    return [
        *(
            Figure(f"added to a call: {form}", "ns", forms[form], forms["C"], "C", most, NOISY)
            for form, most in FORMS.items()
        ),
        Figure("a call while a backlog is delivered, p99", "us", speed["p99"], speed["C"], "C", 4, NOISY),
        Figure("late from 1 ms of sleep while a backlog is delivered, p50", "us", speed["late p50"], []),
        Figure("late from 1 ms of sleep while a backlog is delivered, p90", "us", speed["late p90"], []),
        Figure("a call with durability=event, p50", "us", each["p50"], each["C"], "C", 20, DISK),
        Figure("CPU of a delivered event", "us", memory["cpu"], memory["D"], "D", 2.5, NOISY),
        Figure("CPU of a delivered event, outbox", "us", outbox["cpu"], outbox["D"], "D", 4, NOISY),
        Figure("CPU of a delivered event, durability=event", "us", each["cpu"], each["D"], "D"),
        Figure("the events of these three: share lost, at worst", "", [max(lost)], [], "", 0),
        Figure("50,000 events in a tight loop: share lost, at worst", "", [1 - min(bursts["loop"])], [], "", 0),
        Figure("8 threads x 5,000 events: share lost, at worst", "", [1 - min(bursts["threads"])], [], "", 0),
        Figure("memory of an event that waits", "bytes", pending, [], "", 200),
        Figure("memory that a million events add, at worst", "MB", [max(found["million"]["bytes"]) / 1e6], [], "", 1),
        Figure("memory of import and first delivery", "MB", size["ours"], size["floor"], "httpx, orjson", 1.2),
        Figure("import", "ms", ends["import"], ends["bare"], "bare interpreter", 2, NOISY),
        Figure("ten events, flush and exit", "ms", ends["exit"], ends["exit floor"], "httpx, orjson", 1.2, NOISY),
        Figure("64 threads to 1, an event", "us", threads["64"], threads["1"], "1 thread", 1.2, NOISY),
        Figure("10,000 tasks to 1, an event", "us", tasks["10000"], tasks["1"], "1 task", 1.2, NOISY),
        Figure(
            "4 processes with one outbox, a call",
            "us",
            sharing["outbox p50"],
            sharing["memory p50"],
            "in memory",
            1.2,
            NOISY,
        ),
        Figure(
            "4 processes with one outbox, a call, p99",
            "us",
            sharing["outbox p99"],
            sharing["memory p99"],
            "in memory",
        ),
    ]
