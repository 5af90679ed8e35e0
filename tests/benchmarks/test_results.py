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


def committed(part: str) -> dict[str, Any]:
    """Return what the committed run has measured."""
    found = json.loads((HERE / "results.json").read_text())[part]
    return {
        name: {figure: value["rounds"] if isinstance(value, dict) else value for figure, value in row.items()}
        for name, row in found.items()
    }


@pytest.fixture
def contenders() -> dict[str, Any]:
    """What the committed run has measured of each contender."""
    return committed("contenders")


def table_in_readme(name: str) -> str:
    """Return one of README's tables."""
    return benchmark.README.read_text().partition(benchmark.BEGIN.format(name))[2].partition(benchmark.END)[0]


def test_tables_in_readme_are_of_the_committed_run(contenders: dict[str, Any]) -> None:
    """README's tables and the figures beside the chart are of the same run."""
    assert table_in_readme("peers") == benchmark.table_of_peers(contenders)
    assert table_in_readme("ours") == benchmark.table_of_ours(committed("ours"))


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
