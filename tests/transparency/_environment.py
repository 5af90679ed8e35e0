"""The scratch folder of a run: a virtual environment, the sources of the packages, and all that runs in them."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from tests.transparency._names import names_of
from tests.transparency._packages import BUILD_REQUIREMENTS, Package

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

Mode: TypeAlias = 'Literal["undecorated", "decorated", "launched", "floor"]'

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).parent / "plugin"
SUITE_TIMEOUT = 900
"""Seconds for one run of a test suite."""


class Run(NamedTuple):
    """One run of a test suite.

    Attributes:
        tests: Outcome of each test, by its id.
        errors: Message of each failure, by the id of the test or module.
        decorated: Number of functions in the source that got the decorator; of launched ones, that are tracked.
        account: The library's account at the end: accepted, delivered and so on.
        dropped: Dropped events, by reason.
        messages: The library's log messages.
        seconds: Duration.
    """

    tests: dict[str, str]
    errors: dict[str, str]
    decorated: int
    account: dict[str, int]
    dropped: dict[str, int]
    messages: list[str]
    seconds: float

    @property
    def passed(self) -> list[str]:
        """Ids of the tests that passed, in order."""
        return [test for test, outcome in self.tests.items() if outcome == "passed"]


class Environment:
    """A virtual environment with the packages, their test requirements, and this library from this checkout."""

    def __init__(self, scratch: Path, python: str) -> None:
        self._scratch = scratch
        self._interpreter = python
        self._python = str(scratch / "venv" / "bin" / "python")

    def install(self, packages: Sequence[Package]) -> None:
        """Install all that the runs need."""
        _check(self._interpreter, "-m", "venv", str(self._scratch / "venv"))
        self._pip("install", *BUILD_REQUIREMENTS)
        sdists = self._scratch / "sdists"
        pinned = [f"{package.name}=={package.version}" for package in packages]
        # Without isolation, one set of build requirements serves all packages: 15 s less for each package.
        self._pip("download", "--no-build-isolation", "--no-deps", "--no-binary=:all:", "-d", str(sdists), *pinned)
        requirements = {requirement for package in packages for requirement in package.requirements}
        files = sorted(map(str, sdists.iterdir()))
        self._pip("install", "--no-build-isolation", "pytest>=8", *sorted(requirements), *files, str(ROOT))
        for sdist in sdists.iterdir():
            with tarfile.open(sdist) as archive:
                archive.extractall(self._scratch, filter="data")

    def version(self) -> tuple[int, int]:
        """Return the version of the interpreter."""
        text = _check(self._interpreter, "-c", "import sys; print(*sys.version_info[:2])")
        major, minor = text.split()
        return int(major), int(minor)

    def run(self, package: Package, mode: Mode) -> Run:
        """Run the test suite of a package."""
        folder = self._scratch / f"{package.name}-{package.version}"
        result = self._scratch / f"{package.name}-{mode}.json"
        order = {
            "mode": mode,
            "modules": package.modules,
            "result": str(result),
            "events": str(self._scratch / f"{package.name}-{mode}.jsonl"),
        }
        deselected = [word for test in package.deselected for word in ("--deselect", test)]
        plugins = [word for plugin in ("transparency_plugin", *package.plugins) for word in ("-p", plugin)]
        options = ["-q", "--tb=short", "-p", "no:cacheprovider", *plugins, *deselected, *package.arguments]
        began = time.monotonic()
        output = self._scratch / f"{package.name}-{mode}.txt"
        launcher = self._launcher(package, folder) if mode == "launched" else []
        with output.open("w") as file:
            subprocess.run(
                [*launcher, self._python, "-m", "pytest", *options],
                cwd=folder,
                env=_environment(TRANSPARENCY=json.dumps(order)),
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=SUITE_TIMEOUT,
                check=False,
            )
        if not result.exists():
            message = (
                f"{package.name}, {mode}: pytest ended early. The end of its output:\n{output.read_text()[-4000:]}"
            )
            raise RuntimeError(message)
        found = json.loads(result.read_text())
        return Run(
            found["tests"],
            found["errors"],
            found.get("decorated", 0),
            found.get("account", {}),
            found.get("dropped", {}),
            found.get("messages", []),
            time.monotonic() - began,
        )

    def _launcher(self, package: Package, folder: Path) -> list[str]:
        """Name the functions of a package in a settings file in its folder; return the words that launch a command."""
        (packages,) = (self._scratch / "venv" / "lib").glob("python*/site-packages")
        keys = [key for module in package.modules for key in names_of(packages, module)]
        lines = ['integrations = "off"', "[features]", *(f'"{key}" = "*"' for key in keys)]
        (folder / "ts_autotrack.toml").write_text("\n".join(lines))
        return [self._python, "-m", "ts_autotrack.cli", "run", "--"]

    def _pip(self, *words: str) -> None:
        _check(self._python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words)


def _environment(**variables: str) -> dict[str, str]:
    """Return the environment of a test suite: without the library's settings, and with no plugin loaded by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    kept = {name: value for name, value in kept.items() if not name.startswith(("PYTEST", "PYTHON", "DO_NOT_TRACK"))}
    # The seed: sets of parameters have one order, and tests one id, in all runs.
    fixed = {"PYTHONPATH": str(PLUGIN), "PYTHONHASHSEED": "0", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {**kept, **fixed, **variables}


def _check(*command: str) -> str:
    """Run a command; return its standard output, or raise with all of its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        message = f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    return done.stdout
