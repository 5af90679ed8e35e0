"""Runs the test suites of other packages with every function decorated, and reports the tests that break.

    python -m tests.transparency                              the quickest packages
    python -m tests.transparency attrs click                  packages by name
    python -m tests.transparency --all                        all packages of the table
    python -m tests.transparency --python python3.12 ...      another interpreter than the running one
    python -m tests.transparency --floor ...                  a closure that does nothing, too, for comparison
    python -m tests.transparency --launched ...               named by settings and launched, instead of decorated
    python -m tests.transparency --scratch DIR ...            keep environment, sources, output and events in DIR

From Python 3.12 on decorating may break no test. Before, a tracked function is a closure: decorating may break no more
tests than a closure that does nothing, so these interpreters always run with `--floor`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.transparency._environment import Environment
from tests.transparency._packages import DEFAULT, PACKAGES
from tests.transparency._report import Comparison, lines

WATCHING = (3, 12)
"""First version whose interpreter reports the return of a function, so that none is wrapped."""


def main() -> int:
    """Run the suites; return 1 if decorating breaks more tests than allowed."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(arguments.scratch or folder).resolve(), arguments)


def run(scratch: Path, arguments: argparse.Namespace) -> int:
    """Compare the runs of each package; return the exit status."""
    packages = [PACKAGES[name] for name in arguments.packages]
    scratch.mkdir(parents=True, exist_ok=True)
    environment = Environment(scratch, arguments.python)
    floor_is_bound = environment.version() < WATCHING
    began = time.monotonic()
    environment.install(packages)
    print(f"{arguments.python}: environment made in {time.monotonic() - began:.0f} s", flush=True)
    status = 0
    for package in packages:
        undecorated = environment.run(package, "undecorated")
        decorated = environment.run(package, "launched" if arguments.launched else "decorated")
        floor = environment.run(package, "floor") if floor_is_bound or arguments.floor else None
        comparison = Comparison(package, undecorated, decorated, floor)
        print("\n".join(lines(comparison)))
        for problem in comparison.problems(floor_is_bound=floor_is_bound):
            print(f"{package.name}: {problem}", file=sys.stderr)
            status = 1
        sys.stdout.flush()
    return status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.transparency", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("packages", nargs="*", help=f"of {', '.join(PACKAGES)}; default: {' '.join(DEFAULT)}")
    parser.add_argument("--all", action="store_true", help="all packages of the table")
    parser.add_argument("--python", default=sys.executable, help="interpreter; default: the running one")
    parser.add_argument("--floor", action="store_true", help="run with a closure that does nothing, too")
    parser.add_argument("--launched", action="store_true", help="functions named by settings, instead of decorated")
    parser.add_argument("--scratch", help="a new directory to keep; default: a temporary directory")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.packages if name not in PACKAGES]:
        parser.error(f"not in the table of packages: {', '.join(unknown)}")
    arguments.packages = list(PACKAGES) if arguments.all else arguments.packages or list(DEFAULT)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
