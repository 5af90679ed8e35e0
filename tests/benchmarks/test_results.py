"""What the benchmark shows is what it measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import __main__ as benchmark
from tests.benchmarks import _chart
from tests.benchmarks._figures import Figure

HERE = Path(__file__).parent


@pytest.fixture
def contenders() -> dict[str, Any]:
    """What the committed run has measured of each contender."""
    found = json.loads((HERE / "results.json").read_text())["contenders"]
    return {
        name: {figure: value["rounds"] if isinstance(value, dict) else value for figure, value in row.items()}
        for name, row in found.items()
    }


def test_table_in_readme_is_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """README's table and the figures beside the chart are of the same run."""
    table = benchmark.README.read_text().partition(benchmark.BEGIN)[2].partition(benchmark.END)[0]
    assert table == benchmark.table_of_peers(contenders)


def test_chart_is_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """The chart is drawn from the committed figures, and is an image that shows every contender."""
    drawn = (HERE / "results.svg").read_text()
    assert drawn == _chart.draw(contenders)
    texts = {element.text for element in ET.fromstring(drawn).iter() if element.text}  # noqa: S314 - our own
    assert set(contenders) <= texts


@pytest.mark.parametrize(
    ("values", "floors", "most", "holds", "fails"),
    [
        ([10.0, 11.0, 30.0], [10.0, 10.0, 10.0], 1.2, True, False),  # the middle round counts
        ([13.0], [10.0], 1.2, False, False),  # beyond the bound, within what a noisy machine explains
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
    """A figure fails when it is beyond its bound by more than its slack."""
    figure = Figure("f", "us", values, floors, "C", most, 1.5)
    assert (figure.holds, figure.fails) == (holds, fails)
