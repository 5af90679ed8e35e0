"""The plugin decorates every function of a package, and the report finds every test that breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import ts_autotrack
from tests.transparency._environment import PLUGIN, Run
from tests.transparency._packages import DEFAULT, PACKAGES
from tests.transparency._report import Comparison, lines

if TYPE_CHECKING:
    from tests.transparency._environment import Mode

SAMPLE = """
import functools

def plain():
    return 1

class Group:
    @classmethod
    def of_class(cls):
        return cls.__name__

    @staticmethod
    @functools.lru_cache
    def of_none():
        return 3

def steps():
    def nested():
        return 4
    yield nested()

async def later():
    return 5

def raising():
    raise LookupError

def named():
    import sys
    return sys._getframe(1).f_code.co_name
"""
TESTS = """
import asyncio
import inspect
import pytest
import sample

def test_values():
    assert sample.plain() == 1
    assert sample.Group.of_class() == "Group"
    assert sample.Group.of_none() == 3
    assert list(sample.steps()) == [4]
    assert asyncio.run(sample.later()) == 5
    with pytest.raises(LookupError):
        sample.raising()

def test_line_numbers_stay():
    assert inspect.unwrap(sample.plain).__code__.co_firstlineno == 4

def test_caller():
    assert sample.named() == "test_caller"
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A package of one module, with its tests."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    (tmp_path / "test_sample.py").write_text(TESTS)
    return tmp_path


def run(folder: Path, mode: Mode) -> tuple[dict[str, Any], list[str]]:
    """Run the tests of the sample; return the plugin's result and the features of the events."""
    result, events = folder / f"{mode}.json", folder / f"{mode}.jsonl"
    order = {"mode": mode, "modules": ["sample"], "result": str(result), "events": str(events)}
    options = ["-q", "-p", "no:cacheprovider", "-p", "transparency_plugin", "--rootdir", str(folder), str(folder)]
    paths = os.pathsep.join([str(PLUGIN), str(folder), str(Path(ts_autotrack.__file__).parents[1])])
    subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        env={"TRANSPARENCY": json.dumps(order), "PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        check=False,
        capture_output=True,
    )
    written = events.read_text().splitlines() if events.exists() else []
    names = [json.loads(line)["item"]["properties"]["feature_name"] for line in written]
    return json.loads(result.read_text()), names


def test_every_function_is_decorated(sample: Path) -> None:
    """Functions, methods, nested functions, generators and coroutine functions make events; a raising call none."""
    result, features = run(sample, "decorated")
    assert result["decorated"] == 8
    assert features == ["plain", "of_class", "of_none", "nested", "steps", "later", "named"]
    assert result["account"]["delivered"] == 7
    assert result["tests"]["test_sample.py::test_values"] == "passed"
    assert result["tests"]["test_sample.py::test_line_numbers_stay"] == "passed"


def test_undecorated_is_undecorated(sample: Path) -> None:
    """The run to compare with imports the package as it is."""
    result, features = run(sample, "undecorated")
    assert set(result["tests"].values()) == {"passed"}
    assert features == []


def test_a_closure_is_noticed(sample: Path) -> None:
    """A program that looks at its caller sees the frame of the closure that does nothing."""
    result, features = run(sample, "floor")
    assert result["tests"]["test_sample.py::test_caller"] == "failed"
    assert features == []


def outcome(**changes: Any) -> Run:
    """Return a decorated run in which both tests passed, but for the changes."""
    account = {"accepted": 3, "delivered": 2, "pending": 0, "rejected": 0, "handed_over": 0}
    whole = Run({"a": "passed", "b[1]": "passed"}, {}, 2, account, {"unattributed": 1}, [], 1.0)
    return whole._replace(**changes)


def comparison(decorated: Run, floor: Run | None = None) -> Comparison:
    """Compare a run with an undecorated run in which both tests passed."""
    return Comparison(PACKAGES[DEFAULT[0]], outcome(), decorated, floor)


def test_a_broken_test_is_a_problem() -> None:
    """A test that fails decorated is reported, and so is a test of a module that cannot be imported."""
    failed = comparison(outcome(tests={"a": "passed", "b[1]": "failed"}, errors={"b[1]": "assert 1 == 2"}))
    assert failed.problems(floor_is_bound=False) == ["tests that decorating breaks: 1; allowed: 0"]
    assert "  broken by decorating: b: assert 1 == 2" in lines(failed)
    missing = comparison(outcome(tests={"a": "passed"}))
    assert "  broken by decorating: b: not run" in lines(missing)
    assert comparison(outcome()).problems(floor_is_bound=False) == []


def test_the_closure_is_the_bound_where_functions_are_wrapped() -> None:
    """As many tests may break as break with a closure that does nothing, no more."""
    one, both = {"a": "passed", "b[1]": "failed"}, {"a": "failed", "b[1]": "failed"}
    assert comparison(outcome(tests=one), outcome(tests=one)).problems(floor_is_bound=True) == []
    assert comparison(outcome(tests=one), outcome(tests=one)).problems(floor_is_bound=False) != []
    assert comparison(outcome(tests=both), outcome(tests=one)).problems(floor_is_bound=True) != []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"decorated": 0}, "no function was decorated"),
        ({"account": {"accepted": 1, "delivered": 0}}, "no event was recorded"),
        ({"account": {"accepted": 9, "delivered": 2}}, "does not close"),
        ({"dropped": {"fault": 1}}, "faults of its own"),
    ],
)
def test_a_run_without_proof_is_a_problem(changes: dict[str, Any], problem: str) -> None:
    """A run in which nothing was decorated or recorded, or in which the library failed, counts as a failure."""
    assert any(problem in found for found in comparison(outcome(**changes)).problems(floor_is_bound=False))
