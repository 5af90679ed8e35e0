"""Modules of a made-up program, and the import hooks that track it."""

from __future__ import annotations

import importlib
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from ts_autotrack._core import named_features
from ts_autotrack.launcher._import_hooks import ImportHooks
from ts_autotrack.launcher._targets import Targets, TargetStatus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Program:
    """Modules in a folder of their own.

    Args:
        folder: The folder, which is on `sys.path`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[tuple[str, str]] = []
        self.hooks = ImportHooks(lambda name, error: self.faults.append((name, repr(error))))
        self.targets = Targets({})

    def write(self, name: str, text: str) -> None:
        """Write a module, or a module of a package by a name with dots."""
        path = self.folder.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def track(self, features: Any) -> None:
        """Name features, as the setting `features` does."""
        self.targets = Targets(named_features.parse(features))
        self.hooks.install()
        self.targets.register(self.hooks)

    def load(self, name: str) -> Any:
        """Import a module."""
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def status(self, key: str) -> TargetStatus:
        """Return the status of a target."""
        return self.targets.statuses[key]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """A program without modules; its modules are forgotten at the end."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module written twice in a second has one time stamp
    before = set(sys.modules)
    made = Program(tmp_path)
    yield made
    made.hooks.remove()
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
