"""Compares the runs of a package's test suite and prints the differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.transparency._environment import Run
    from tests.transparency._packages import Package


class Comparison(NamedTuple):
    """The runs of one package's test suite; `floor` is None where that run is not needed."""

    package: Package
    undecorated: Run
    decorated: Run
    floor: Run | None

    def broken(self, run: Run | None) -> list[str]:
        """Return the tests that pass undecorated and do not pass in `run`."""
        return [test for test in self.undecorated.passed if run is not None and run.tests.get(test) != "passed"]

    def problems(self, *, floor_is_bound: bool) -> list[str]:
        """Return the reasons to fail: broken tests beyond the bound, and runs that prove nothing."""
        broken, allowed = len(self.broken(self.decorated)), len(self.broken(self.floor)) if floor_is_bound else 0
        account, dropped = self.decorated.account, self.decorated.dropped
        settled = sum(account.values()) - account.get("accepted", 0) + sum(dropped.values())
        checks = {
            f"tests that decorating breaks: {broken}; allowed: {allowed}": broken <= allowed,
            "no test passes undecorated": self.undecorated.passed,
            "no function was decorated": self.decorated.decorated,
            "no event was recorded": account.get("delivered"),
            f"the library counts faults of its own: {dropped.get('fault')}": not dropped.get("fault"),
            f"the library's account does not close: {account}, dropped: {dropped}": account.get("accepted") == settled,
        }
        return [problem for problem, right in checks.items() if not right]


def lines(comparison: Comparison) -> list[str]:
    """Return the figures of a package, and the broken tests of each run."""
    package, undecorated, decorated, floor = comparison
    broken, broken_by_floor = comparison.broken(decorated), comparison.broken(floor)
    figures = [
        f"{package.name} {package.version}: {len(undecorated.passed)} tests pass undecorated",
        f"{len(broken)} break with {decorated.decorated} functions decorated",
    ]
    figures += [f"{len(broken_by_floor)} with a closure that does nothing"] if floor is not None else []
    seconds = " + ".join(f"{run.seconds:.0f}" for run in (undecorated, decorated, floor) if run is not None)
    dropped = "".join(f", {number} {reason}" for reason, number in sorted(decorated.dropped.items()) if number)
    found = ["; ".join(figures), f"  events: {decorated.account.get('delivered', 0)} written{dropped}; {seconds} s"]
    both = [test for test in broken if test in broken_by_floor]
    found += _grouped("broken by both", both, decorated)
    found += _grouped("broken by decorating", [test for test in broken if test not in both], decorated)
    if floor is not None:
        only = [test for test in broken_by_floor if test not in both]
        found += _grouped("broken by the closure that does nothing", only, floor)
    return found


def _grouped(title: str, tests: list[str], run: Run) -> list[str]:
    """Return one line for each test function: its id, its number of broken parameter sets, the first reason."""
    groups: dict[str, list[str]] = {}
    for test in tests:
        groups.setdefault(test.partition("[")[0], []).append(test)
    return [
        f"  {title}: {name}{f' ({len(group)} times)' if len(group) > 1 else ''}: {_reason(run, group[0])}"
        for name, group in groups.items()
    ]


def _reason(run: Run, test: str) -> str:
    """Return the message of a failure, or of the module that holds the test."""
    return run.errors.get(test) or run.errors.get(test.partition("::")[0]) or run.tests.get(test, "not run")
