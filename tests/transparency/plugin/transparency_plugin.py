"""Pytest plugin that decorates every function of a package while the package is imported, and records all outcomes.

The plugin runs in the environment of the package under test, where no other module of these tests can be imported. It
takes its orders from the environment variable TRANSPARENCY, a JSON object with these keys:

    mode      "undecorated", "decorated", "launched" (by `ts-autotrack run`, which tracks the functions) or "floor"
    modules   names of the top-level modules to decorate
    result    path of the file to write at the end of the tests
    events    path of the file that receives the events
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.abc
import importlib.machinery
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import CodeType, ModuleType

    import pytest

DECORATOR = "__transparency__"
"""Name of the decorator in the built-in names: the decorated modules get no name of their own."""


def add_decorators(tree: ast.Module) -> int:
    """Add the decorator below all others of every `def` and `async def`, nested functions and methods included.

    The decorator has the line of its `def`, so no line number of the module changes.

    Returns:
        The number of functions.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in functions:
        node.decorator_list.append(ast.copy_location(ast.Name(DECORATOR, ast.Load()), node))
    return len(functions)


class DecoratingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source with every function decorated; bytecode is neither read nor written."""

    decorated = 0
    """Number of functions decorated by all loaders."""

    def get_code(self, fullname: str) -> CodeType:
        """Compile the module with the decorators added."""
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        DecoratingLoader.decorated += add_decorators(tree)
        return compile(tree, path, "exec", dont_inherit=True)


class DecoratingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of the given packages as usual, and has the `DecoratingLoader` load them."""

    def __init__(self, modules: Iterable[str]) -> None:
        self._modules = frozenset(modules)
        if early := self._modules & set(sys.modules):
            message = f"{', '.join(sorted(early))}: imported before the plugin, so nothing there would be decorated"
            raise RuntimeError(message)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a module to decorate; None for all others."""
        if fullname.partition(".")[0] not in self._modules:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = DecoratingLoader(fullname, spec.loader.path)
        return spec


def floor(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function in a closure that does nothing: the usual decorator, and the bound on Python 3.10 and 3.11."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Messages(logging.Filter):
    """Keeps the library's log messages out of the tests, which may count messages, and for the result."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the text of a message, and stop the message."""
        self.texts.append(record.getMessage())
        return False


class Outcomes:
    """Records the outcome of every test and writes the result at the end."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.tests: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.result: Callable[[], dict[str, object]] = dict

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst outcome of set-up, call and tear-down."""
        if report.failed:
            self.tests[report.nodeid] = "failed"
            self.errors.setdefault(report.nodeid, _last_line(report))
        elif report.skipped or (report.when == "call" and report.nodeid not in self.tests):
            self.tests[report.nodeid] = report.outcome

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep the error of a module that cannot be imported."""
        if report.failed:
            self.errors[report.nodeid] = _last_line(report)

    def pytest_sessionfinish(self) -> None:
        """Write the result."""
        result = {"tests": self.tests, "errors": self.errors, **self.result()}
        self._path.write_text(json.dumps(result))


def _last_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the message of the error at the end of a report."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return " ".join(text.split())[:200]


def decorate(outcomes: Outcomes, order: dict[str, Any]) -> None:
    """Turn the library on, and decorate the package with `track_feature`."""
    if order["mode"] != "launched":
        finder = DecoratingFinder(order["modules"])
        sys.meta_path.insert(0, finder)  # first: the library's own dependencies may import the package
    if order["mode"] == "floor":
        setattr(builtins, DECORATOR, floor)
        outcomes.result = lambda: {"decorated": DecoratingLoader.decorated}
        return

    import ts_autotrack  # noqa: PLC0415 - after the finder

    messages = Messages()
    logging.getLogger("ts_autotrack").addFilter(messages)
    setattr(builtins, DECORATOR, ts_autotrack.track_feature)
    ts_autotrack.configure(exporter="jsonl", jsonl_path=order["events"])
    ts_autotrack.bind_user("user", group_id="account")

    def result() -> dict[str, object]:
        ts_autotrack.flush(60)
        stats = ts_autotrack.stats()
        counters = ("accepted", "delivered", "pending", "rejected", "handed_over")
        return {
            "decorated": DecoratingLoader.decorated or _launched(),
            "account": {name: getattr(stats, name) for name in counters},
            "dropped": dict(stats.dropped),
            "messages": messages.texts,
        }

    outcomes.result = result


def _launched() -> int:
    """Return the number of functions that the launcher tracks."""
    from ts_autotrack.launcher._activation import target_statuses  # noqa: PLC0415 - after the finder

    return sum(status.state == "tracked" for status in target_statuses())


def pytest_configure(config: pytest.Config) -> None:
    """Record the outcomes of this run."""
    if _outcomes is not None:
        config.pluginmanager.register(_outcomes)


def _start() -> Outcomes | None:
    """Carry out the orders at import: pytest loads this plugin before any other module of the tests."""
    if not (text := os.environ.get("TRANSPARENCY")):
        return None
    order = json.loads(text)
    outcomes = Outcomes(order["result"])
    if order["mode"] != "undecorated":
        decorate(outcomes, order)
    return outcomes


_outcomes = _start()
