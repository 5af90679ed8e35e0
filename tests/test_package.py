"""The package as a whole: exports, imports, and costs before its first use."""

from __future__ import annotations

import doctest
import importlib
import typing
from pathlib import Path

import pytest

import ts_autotrack
from tests.conftest import run_python
from ts_autotrack import typing as our_types
from ts_autotrack._core import contract
from ts_autotrack._core.capture import feature
from ts_autotrack._core.capture.buffer import Buffer

PACKAGE = Path(ts_autotrack.__file__).parent
HEAVY = (
    "asyncio", "certifi", "dataclasses", "httpcore", "httpx", "inspect", "json", "opentelemetry", "orjson", "signal",
    "sqlite3", "ssl", "threading", "typing", "wrapt",
)  # fmt: skip
"""Modules that an inert library must not load."""


def test_all_is_sorted_and_equals_the_exports() -> None:
    """`__all__` names every public object of the package, in order. Pytest adds names that begin with "@"."""
    exported = [
        name for name, value in vars(ts_autotrack).items() if not name.startswith(("_", "@")) and name != "annotations"
    ]
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert ts_autotrack.__all__ == sorted(["__version__", *(name for name in exported if name not in modules)])


def test_version_is_the_distribution_s() -> None:
    """`ts_autotrack.__version__` is the version that pip shows."""
    assert ts_autotrack.__version__ == importlib.metadata.version("ts_autotrack")


def test_an_inert_library_loads_nothing_heavy() -> None:
    """Importing, decorating, entering a context and tracking load no part of the delivery stack without a key."""
    code = f"""
import sys
before = set(sys.modules)
from ts_autotrack import track, track_feature, user_context
@track_feature("f")
def f(): pass
@track_feature("g")
async def g(): pass
with user_context("u"): f()
print([m for m in {HEAVY!r} if m in sys.modules and m not in before and m not in ("threading",)])
"""
    assert run_python(code).stdout == "[]\n"


def test_opentelemetry_s_part_is_loaded_by_entry_points_only() -> None:
    """An active library loads neither OpenTelemetry's SDK nor the modules that need it."""
    code = """
import sys
from ts_autotrack import flush, track
track("clicked", user_id="u")
flush()
parts = ("opentelemetry.sdk", "opentelemetry.instrumentation", "ts_autotrack.otel")
print([name for name in sys.modules if name.startswith(parts)])
"""
    assert run_python(code, TS_AUTOTRACK_EXPORTER="console").stdout == "[]\n"


def test_an_active_library_loads_its_stack_with_the_import() -> None:
    """With a key in the environment the import loads the HTTP client, so that no thread of ours imports later."""
    code = """
import sys
measured = "sqlite3" in sys.modules  # by a tool that measures coverage
import ts_autotrack
names = ["httpx", "orjson"] + ([] if measured else ["sqlite3"])
print([name for name in names if name in sys.modules])
"""
    assert run_python(code, THRIVESTACK_API_KEY="k").stdout == "['httpx', 'orjson']\n"
    assert run_python(code, TS_AUTOTRACK_EXPORTER="console").stdout == "['orjson']\n"
    assert run_python(code, THRIVESTACK_API_KEY="k", TS_AUTOTRACK_DISABLED="1").stdout == "[]\n"
    with_outbox = run_python(code + "print('sqlite3' in sys.modules)", THRIVESTACK_API_KEY="k", TS_AUTOTRACK_OUTBOX="o")
    assert with_outbox.stdout.endswith("True\n")


@pytest.mark.parametrize(
    "module",
    [
        "_core.api",
        "_core.capture.additions",
        "_core.capture.block",
        "_core.capture.feature",
        "_core.capture.manual",
        "_core.identity.user_context",
        "_core.observers",
        "otel.metrics",
        "typing",
    ],
)
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of the public names do as they show."""
    monkeypatch.setenv("TS_AUTOTRACK_EXPORTER", "none")
    result = doctest.testmod(importlib.import_module(f"ts_autotrack.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_have_docstrings_with_examples() -> None:
    """Every public name has a contract with an example."""
    for name in ts_autotrack.__all__:
        assert name == "__version__" or "Example:" in (getattr(ts_autotrack, name).__doc__ or ""), name


def test_values_allowed_at_run_time_are_those_of_the_types() -> None:
    """The type checker and the decorator allow the same values."""
    assert typing.get_args(our_types.FeatureType) == contract.FEATURE_TYPES
    assert typing.get_args(our_types.Interface) == contract.INTERFACES
    assert typing.get_args(our_types.Outcome) == feature.OUTCOMES


def test_every_drop_reason_of_the_buffer_is_public() -> None:
    """The buffer counts only the reasons of `ts_autotrack.typing.DropReason`."""
    assert set(Buffer().drops) <= set(typing.get_args(our_types.DropReason))
