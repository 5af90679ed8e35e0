"""The package as a whole: what it exports, imports, and costs before it is used."""

from __future__ import annotations

import ast
import doctest
import importlib
import typing
from pathlib import Path

import pytest

import ts_autotrack
from tests.conftest import run_python
from ts_autotrack import typing as our_types
from ts_autotrack._core import contract
from ts_autotrack._core.capture.feature import OUTCOMES

PACKAGE = Path(ts_autotrack.__file__).parent
CORE = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in (PACKAGE / "_core").rglob("*.py")
)


def test_all_is_sorted_and_is_what_is_exported() -> None:
    """`__all__` names every public object of the package, in order."""
    exported = [
        name for name, value in vars(ts_autotrack).items() if not name.startswith("_") and name != "annotations"
    ]
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert ts_autotrack.__all__ == sorted(name for name in exported if name not in modules)


def module_imports(path: Path) -> set[str]:
    """Return the modules of ours that a module imports when it is run, TYPE_CHECKING blocks left out."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if (
            id(node) in skipped
            or not isinstance(node, ast.ImportFrom)
            or not (node.module or "").startswith("ts_autotrack")
        ):
            continue
        module = (node.module or "").removeprefix("ts_autotrack").removeprefix(".")
        found |= {module} if module else {alias.name for alias in node.names}
    return found


def test_imports_form_a_dag_and_core_imports_no_edge() -> None:
    """No module imports, directly or not, one that imports it; the core imports neither inspector nor command line."""
    graph = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): module_imports(path)
        for path in PACKAGE.rglob("*.py")
    }
    done: set[str] = set()

    def visit(module: str, inside: tuple[str, ...]) -> None:
        assert module not in inside, " -> ".join((*inside, module))
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*inside, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    for module in CORE:
        assert not any(name.split(".")[0] in ("inspector", "cli") for name in graph[module]), module


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """Importing, decorating and entering a context load nothing of the size of an HTTP client."""
    code = """
import sys
before = set(sys.modules)
from ts_autotrack import track_feature, user_context
@track_feature("f")
def f(): pass
@track_feature("g")
async def g(): pass
with user_context("u"): pass
heavy = (
    "httpx", "orjson", "opentelemetry", "sqlite3", "wrapt", "inspect", "typing", "dataclasses", "asyncio"
)
print([m for m in heavy if m in sys.modules and m not in before])
"""
    assert run_python(code).stdout == "[]\n"


@pytest.mark.parametrize(
    "module",
    [
        "_core.capture.additions",
        "_core.capture.block",
        "_core.capture.feature",
        "_core.identity.user_context",
        "_core.api",
        "_core.capture.manual",
        "typing",
    ],
)
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of the public names do what they show."""
    monkeypatch.setenv("TS_AUTOTRACK_EXPORTER", "none")
    result = doctest.testmod(importlib.import_module(f"ts_autotrack.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_have_docstrings_with_examples() -> None:
    """Every public name has a contract with an example."""
    for name in ts_autotrack.__all__:
        assert "Example:" in (getattr(ts_autotrack, name).__doc__ or ""), name


def test_values_allowed_at_run_time_are_those_of_the_types() -> None:
    """What the type checker allows and what decoration allows are the same."""
    assert typing.get_args(our_types.FeatureType) == contract.FEATURE_TYPES
    assert typing.get_args(our_types.Interface) == contract.INTERFACES
    assert typing.get_args(our_types.Outcome) == OUTCOMES


def test_modules_stay_readable() -> None:
    """No module is longer than 350 lines."""
    lengths = {str(path): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 350} == {}
