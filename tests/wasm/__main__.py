"""Runs the tests of capture and identity on CPython 3.14, compiled to WebAssembly.

    python -m tests.wasm [ARGUMENTS OF PYTEST]

The interpreter is the npm package `pyodide`. It has no threads, no processes and no sockets: tests that need these are
skipped. Without node, npm or the registries the command says so and succeeds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYODIDE, PYTHON = "314.0.7", "3.14"
"""Version of the npm package, and of its Python."""
PACKAGES = ("click", "httpx", "hypothesis", "opentelemetry-api", "pytest", "typer", "wrapt")
"""Packages that the tests import and that have a wheel for any machine. A stand-in takes the place of orjson."""
TESTS = ("tests/core/capture", "tests/core/identity", "tests/core/test_decorate.py")
LEFT_OUT = ("--ignore=tests/core/identity/test_ids.py", "--ignore=tests/core/identity/test_refused_ids.py")
"""Tests of values of compiled packages: numpy, SQLAlchemy, pydantic."""
DEADLINE = 300
"""Seconds for the tests, which take three on a quiet machine."""

HERE = Path(__file__).parent


def install(scratch: Path) -> str:
    """Install the interpreter and the packages; return the reason if that is impossible."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        return "node and npm are needed"
    target = ["--target", str(scratch / "packages"), "--only-binary=:all:", "--platform=any"]
    for command in (
        [npm, "install", "--no-audit", "--no-fund", "--prefix", str(scratch), f"pyodide@{PYODIDE}"],
        [sys.executable, "-m", "pip", "install", "--quiet", f"--python-version={PYTHON}", *target, *PACKAGES],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"`{' '.join(command)}` failed:\n{done.stderr}"
    return ""


def run(scratch: Path, words: list[str]) -> int:
    """Run pytest with these arguments in the installed interpreter; return its exit status."""
    folders = [scratch / "node_modules" / "pyodide", scratch / "packages", HERE.parent.parent]
    command = ["node", str(HERE / "run.mjs"), *map(str, folders), *words]
    return subprocess.run(command, timeout=DEADLINE, check=False).returncode


def main(words: list[str]) -> int:
    """Install and run; return the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        if problem := install(Path(scratch)):
            print(f"tests.wasm: the tests on Python {PYTHON} did not run: {problem}")
            return 0
        return run(Path(scratch), words or ["-q", *TESTS, *LEFT_OUT])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
