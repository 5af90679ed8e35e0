"""The committed tables and chart match the committed measurements."""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import __main__ as benchmark
from tests.benchmarks import _chart, _probe, _tasks, _web
from tests.benchmarks._figures import Figure
from tests.benchmarks._sink import MARKER, arrived

HERE = Path(__file__).parent


def committed(part: str) -> dict[str, Any]:
    """Return one part of the committed measurements."""
    found = json.loads((HERE / "results.json").read_text()).get(part, {})
    return {
        name: {figure: value["rounds"] if isinstance(value, dict) else value for figure, value in row.items()}
        for name, row in found.items()
    }


@pytest.fixture
def contenders() -> dict[str, Any]:
    """Committed measurements of each contender."""
    return committed("contenders")


def test_tables_are_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """All tables of the README in this folder are made from results.json."""
    assert benchmark.committed_table("peers") == benchmark.table_of_peers(contenders)
    assert benchmark.committed_table("requests") == benchmark.table_of_requests(committed("requests"))
    assert benchmark.committed_table("tasks") == benchmark.table_of_tasks(committed("tasks"))
    assert benchmark.committed_table("ours") == benchmark.table_of_ours(committed("ours"))


def test_chart_is_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """The chart is drawn from results.json, is valid XML and shows every contender."""
    drawn = (HERE / "results.svg").read_text()
    assert drawn == _chart.draw(contenders)
    texts = {element.text for element in ET.fromstring(drawn).iter() if element.text}  # noqa: S314 - our own
    assert set(contenders) <= texts


def test_the_table_shows_the_losses_of_the_worst_round(contenders: dict[str, Any]) -> None:
    """A loss in one round shows in the table even if the other rounds lost nothing."""
    found = {"posthog": {**contenders["posthog"], "lost": [0.0, 0.25, 0.0], "arrived": [10, 3, 10]}}
    (row,) = (line for line in benchmark.table_of_peers(found).splitlines() if line.startswith("| posthog"))
    assert "), 25.00% lost |" in row
    assert row.endswith(" ms, 7 lost |")


def test_cpu_is_divided_by_the_events_received() -> None:
    """Events tracked and never received do not lower the CPU time per event."""
    with benchmark.sink() as url:
        connection = HTTPConnection(url.removeprefix("http://"))

        def deliver_half(events: int) -> None:
            connection.request("POST", "/track", MARKER * (events // 2))
            connection.getresponse().read()

        _, count = _probe.cpu(deliver_half, 100, url)
        connection.close()
    assert count == 50


@pytest.mark.parametrize("stack", _web.STACKS)
def test_requests_of_web_applications_are_measured(stack: str) -> None:
    """Each request of the tracked application leaves one event, and the bare application's requests leave none."""
    with benchmark.sink() as url:
        runner = benchmark.PartRunner(sys.executable, url)
        found = runner.module("_web", stack, "ts_autotrack", url, "1")
        assert arrived(url) == 2 * _web.REPEATS * _web.REQUESTS
    assert {name: len(values) for name, values in found.items()} == {"bare": 1, "added": 1}
    assert found["bare"][0] > 0


def test_tasks_of_celery_are_measured() -> None:
    """Each run of the tracked task leaves one event; publications and bare runs leave none."""
    with benchmark.sink() as url:
        runner = benchmark.PartRunner(sys.executable, url)
        found = runner.module("_tasks", "ts_autotrack", url, "1")
        assert arrived(url) == 2 * _tasks.REPEATS * _tasks.TASKS
    assert sorted(found) == ["publish added", "publish bare", "run added", "run bare"]
    assert {len(values) for values in found.values()} == {1}


@pytest.mark.parametrize(
    ("values", "floors", "most", "holds", "fails"),
    [
        ([10.0, 11.0, 30.0], [10.0, 10.0, 10.0], 1.2, True, False),  # the middle round counts
        ([13.0], [10.0], 1.2, False, False),  # beyond the bound, within the slack
        ([19.0], [10.0], 1.2, False, True),
        ([9.0, 9.1, 99.0], [], 6.0, False, False),  # a time without a floor: slow rounds are the machine's
        ([9.1, 9.2, 9.3], [], 6.0, False, True),
        ([0.0], [], 0.0, True, False),
        ([0.1], [], 0.0, False, True),
        ([1e9], [1.0], None, True, False),
    ],
)
def test_bounds(
    values: list[float],
    floors: list[float],
    most: float | None,
    holds: bool,  # noqa: FBT001
    fails: bool,  # noqa: FBT001
) -> None:
    """A figure fails beyond bound times slack."""
    figure = Figure("f", "us", values, floors, "C", most, 1.5)
    assert (figure.holds, figure.fails) == (holds, fails)
