"""The figures of ts_autotrack and their bounds. Most bounds limit the ratio to a floor of the same run."""

from __future__ import annotations

from statistics import median, quantiles
from typing import NamedTuple


class Figure(NamedTuple):
    """One figure, measured once per round.

    Attributes:
        name: Row header in the table.
        unit: Unit of the values.
        values: Measured values, in the order of the rounds.
        floors: Floor of each round; empty for a figure without a floor.
        floor: Name of the floor.
        most: Upper bound of the ratio, or of the value without floors.
        slack: Tolerance for a noisy machine, as a factor. CI fails beyond bound times slack.
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
        """Lower and upper quartile of the values."""
        return spread(self.values)

    @property
    def ratio(self) -> float | None:
        """Median of the ratios to the floor, round by round; None without floors."""
        if not self.floors:
            return None
        return median(value / floor for value, floor in zip(self.values, self.floors, strict=True))

    @property
    def compared(self) -> float:
        """Number limited by the bound."""
        return self.median if self.ratio is None else self.ratio

    @property
    def holds(self) -> bool:
        """True within the bound."""
        return self.most is None or self.compared <= self.most

    @property
    def fails(self) -> bool:
        """True beyond bound times slack; a noisy time without a floor fails if no round is within.

        A shared machine is slow for some seconds now and then, and a floor of the same round would be slow, too.
        """
        if self.most is None:
            return False
        is_noisy_time = not self.floors and self.slack > 1
        return (min(self.values) if is_noisy_time else self.compared) > self.most * self.slack


def spread(values: list[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


NOISY, DISK = 1.5, 2.0
"""Slack of a time, and of a time that includes a wait for the disk: 19 C, and 29 C within the same hour."""
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
"""Bounds of the time added to a call, as ratios to floor C."""


REQUEST, REQUESTS = 15, {"Starlette": NOISY, "FastAPI": 2.0, "Flask": 2.0, "Django": 2.0}
"""Bound of the microseconds added to a request with one event and a resolver; slack by framework. Only Starlette is
within the bound so far.
"""

TASKS = {"publish": ("publishing", 10), "run": ("running", 15)}
"""Name and bound of the microseconds added to a task of Celery: its publication, and its run with one event."""

DECORATED = {
    "function": ("a tracked function", "closure", 1.05),
    "coroutine": ("a tracked coroutine function", "async closure", 0.8),
    "off": ("a tracked function, library off", "bare", 1.05),
}
"""Name, floor and bound of the figures of watched functions, from Python 3.12 on."""


def of_interpreter(version: str, found: dict[str, list[float]]) -> list[Figure]:
    """Return the figures of decorated functions on one version of Python."""
    watches = int(version.rpartition(".")[2]) >= 12
    names = {"closure": "a closure", "async closure": "a closure", "bare": "undecorated"}
    return [
        *(
            Figure(
                f"Python {version}: {name}",
                "ns",
                found[key],
                found[floor],
                names[floor],
                most if watches else None,
                NOISY,
            )
            for key, (name, floor, most) in DECORATED.items()
        ),
        Figure(
            f"Python {version}: decorating 1,000 functions",
            "ms",
            found["decorating"],
            [],
            "",
            10 if watches else 60,
            NOISY,
        ),
    ]


def of_ours(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    """Return the figures for the measurements of all parts, as returned by `measure_ours`."""
    forms, speed, pending = found["forms"], found["at_full_speed"], found["pending"]["bytes"]
    memory, outbox, each = (found[f"probe {name}"] for name in ("memory", "outbox", "event"))
    ends, size, bursts = found["ends"], found["footprint"], found["bursts"]
    threads, tasks, sharing = found["over_threads"], found["over_tasks"], found["sharing"]
    lost = [*memory["lost"], *outbox["lost"], *each["lost"]]
    decorated = {name.rpartition(" ")[2]: found[name] for name in sorted(found) if name.startswith("decorated ")}
    return [
        *(
            Figure(f"added to a call: {form}", "ns", forms[form], forms["C"], "C", most, NOISY)
            for form, most in FORMS.items()
        ),
        *(
            Figure(f"added to a request: {stack}", "us", found[f"web {stack}"]["added"], [], "", REQUEST, slack)
            for stack, slack in REQUESTS.items()
        ),
        *(
            Figure(f"added to {name} a task of Celery", "us", found["tasks"][f"{turn} added"], [], "", most, 2.0)
            for turn, (name, most) in TASKS.items()
            if "tasks" in found
        ),
        Figure("a call while a backlog is delivered, p99", "us", speed["p99"], speed["C"], "C", 4, NOISY),
        Figure("lateness of a 1 ms sleep while a backlog is delivered, p50", "us", speed["late p50"], []),
        Figure("lateness of a 1 ms sleep while a backlog is delivered, p90", "us", speed["late p90"], []),
        Figure("a call with durability=event, p50", "us", each["p50"], each["C"], "C", 20, DISK),
        Figure("CPU of a delivered event", "us", memory["cpu"], memory["D"], "D", 2.5, NOISY),
        Figure("CPU of a delivered event, outbox", "us", outbox["cpu"], outbox["D"], "D", 4, NOISY),
        Figure("CPU of a delivered event, durability=event", "us", each["cpu"], each["D"], "D"),
        Figure("events of the three rows above: share lost, at worst", "", [max(lost)], [], "", 0),
        Figure("50,000 events in a tight loop: share lost, at worst", "", [1 - min(bursts["loop"])], [], "", 0),
        Figure("8 threads x 5,000 events: share lost, at worst", "", [1 - min(bursts["threads"])], [], "", 0),
        Figure("memory of a waiting event", "bytes", pending, [], "", 200),
        Figure("memory added by a million events, at worst", "MB", [max(found["million"]["bytes"]) / 1e6], [], "", 1),
        Figure("memory of import and first delivery", "MB", size["ours"], size["floor"], "httpx, orjson", 1.2),
        Figure("import", "ms", ends["import"], ends["bare"], "bare interpreter", 2, NOISY),
        Figure(
            "script of ten events, import to exit", "ms", ends["exit"], ends["exit floor"], "httpx, orjson", 1.2, NOISY
        ),
        Figure("an event, 64 threads", "us", threads["64"], threads["1"], "1 thread", 1.2, NOISY),
        Figure("an event, 10,000 tasks", "us", tasks["10000"], tasks["1"], "1 task", 1.2, NOISY),
        Figure(
            "a call, 4 processes with one outbox",
            "us",
            sharing["outbox p50"],
            sharing["memory p50"],
            "in memory",
            1.2,
            NOISY,
        ),
        Figure(
            "a call, 4 processes with one outbox, p99",
            "us",
            sharing["outbox p99"],
            sharing["memory p99"],
            "in memory",
        ),
        *(figure for version, figures in decorated.items() for figure in of_interpreter(version, figures)),
    ]
