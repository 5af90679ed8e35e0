"""The benchmark's tables and chart show the measured figures."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import __main__ as benchmark
from tests.benchmarks import _chart, _probe
from tests.benchmarks._figures import Figure
from tests.benchmarks._sink import MARKER

HERE = Path(__file__).parent


def committed(part: str) -> dict[str, Any]:
    """Return the values measured in the committed run."""
    found = json.loads((HERE / "results.json").read_text())[part]
    return {
        name: {figure: value["rounds"] if isinstance(value, dict) else value for figure, value in row.items()}
        for name, row in found.items()
    }


@pytest.fixture
def contenders() -> dict[str, Any]:
    """Values of each contender in the committed run."""
    return committed("contenders")


def table_in_readme(name: str) -> str:
    """Return a table of README."""
    return benchmark.README.read_text().partition(benchmark.BEGIN.format(name))[2].partition(benchmark.END)[0]


def test_tables_in_readme_are_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """README's tables and the figures beside the chart come from the same run."""
    assert table_in_readme("peers") == benchmark.table_of_peers(contenders)
    assert table_in_readme("ours") == benchmark.table_of_ours(committed("ours"))


def test_chart_is_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """The chart is drawn from the committed figures, is a valid image and shows every contender."""
    drawn = (HERE / "results.svg").read_text()
    assert drawn == _chart.draw(contenders)
    texts = {element.text for element in ET.fromstring(drawn).iter() if element.text}  # noqa: S314 - own file
    assert set(contenders) <= texts


def test_the_table_shows_what_the_worst_round_has_lost(contenders: dict[str, Any]) -> None:
    """A loss in a single round stays visible in the table."""
    found = {"posthog": {**contenders["posthog"], "lost": [0.0, 0.25, 0.0], "arrived": [10, 3, 10]}}
    (row,) = (line for line in benchmark.table_of_peers(found).splitlines() if line.startswith("| posthog"))
    assert "), 25.00% lost |" in row
    assert row.endswith(" ms, 7 lost |")


def test_cpu_is_of_what_the_sink_has_received() -> None:
    """CPU per event counts arrived events only; a tracked event which never arrives does not count."""
    with benchmark.sink() as url:
        connection = HTTPConnection(url.removeprefix("http://"))

        def deliver_half(events: int) -> None:
            connection.request("POST", "/track", MARKER * (events // 2))
            connection.getresponse().read()

        _, arrived = _probe.cpu(deliver_half, 100, url)
        connection.close()
    assert arrived == 50


@pytest.mark.parametrize(
    ("values", "floors", "most", "holds", "fails"),
    [
        ([10.0, 11.0, 30.0], [10.0, 10.0, 10.0], 1.2, True, False),  # the median round counts
        ([13.0], [10.0], 1.2, False, False),  # beyond the bound, within the slack
        ([19.0], [10.0], 1.2, False, True),
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
    """A figure fails when its value exceeds the bound by more than the slack."""
    figure = Figure("f", "us", values, floors, "C", most, 1.5)
    assert (figure.holds, figure.fails) == (holds, fails)
