"""`ts-autotrack run`, `install` and `uninstall`: track a program without changing its code."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._core import project
from ts_autotrack._core.parsers import working_directory
from ts_autotrack._core.redaction import printable
from ts_autotrack.launcher import _install, _run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def add_run(commands: Any) -> None:
    """Add the commands to the parser's commands."""
    run = commands.add_parser(
        "run",
        usage="ts-autotrack run [-h] [--env-file FILE] [--] COMMAND ...",
        help="run a command; its Python processes track the features that the settings name",
        description="Runs COMMAND with a folder first on PYTHONPATH that activates the settings `features`, "
        "`integrations` and `user` in each of its Python processes, and in their children. Processes of another "
        "environment without ts_autotrack are left alone. Python ignores PYTHONPATH with -I and -E, and this folder "
        "with -S.",
        epilog="exit status: the status of COMMAND; 127 if there is no such command, 126 if it cannot be started, 2 "
        "for bad arguments",
    )
    run.add_argument(
        "--env-file",
        action="append",
        default=[],
        metavar="FILE",
        help="read KEY=value lines; variables that are set already win; may be given several times, and the last wins",
    )
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="program and arguments")
    run.set_defaults(run=_run_command)
    for name, function, text in (
        ("install", _install_files, "track in every process of this environment, without `ts-autotrack run`"),
        ("uninstall", _uninstall_files, "undo `ts-autotrack install`"),
    ):
        part = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {_EXPLAINED[name]}")
        part.add_argument("--system", action="store_true", help="also outside of a virtual environment")
        part.set_defaults(run=function)


_EXPLAINED = {
    "install": "Writes a .pth file (and a .start file, for Python 3.15) that imports the library at the start of an "
    "interpreter if TS_AUTOTRACK_FEATURES or TS_AUTOTRACK_INTEGRATIONS is set, or if the settings file found now from "
    "the working directory upwards still exists. Run it in the project's folder.",
    "uninstall": "Deletes these files. Run it before `pip uninstall ts_autotrack`; later they do nothing.",
}


def add_variables(files: Sequence[str]) -> None:
    """Set the variables that the files name, in this process. A variable that is set already keeps its value.

    Raises:
        LaunchError: If a file cannot be read.
    """
    os.environ.update({**_run.variables_of(files), **os.environ})


def _run_command(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        return _fail("run", "name a command: ts-autotrack run -- python app.py", 2)
    try:
        variables = _run.environment_of(os.environ, options.env_file, working_directory())
        return _run.launch(command, variables)
    except _run.LaunchError as error:
        return _fail("run", str(error), error.status)


def _install_files(options: argparse.Namespace) -> int:
    folder = _install.site_packages()
    if not (_install.is_virtual() or options.system):
        why = f"{sys.prefix} is no virtual environment: activate one, or say --system to track in all programs there"
        return _fail("install", why, 1)
    settings = _settings_file()
    try:
        written = _install.install(folder, settings)
    except OSError as error:
        return _fail("install", f"cannot write in {folder}: {error.strerror}", 1)
    _show("wrote", written)
    if settings:
        print(printable(f"Python processes of {sys.prefix} track the features in {settings}."))
    else:
        print(printable(f"Python processes of {sys.prefix} track if TS_AUTOTRACK_FEATURES or"))
        print("TS_AUTOTRACK_INTEGRATIONS is set. For a settings file, run this again in its folder.")
    print("`ts-autotrack uninstall` deletes the files.")
    return 0


def _uninstall_files(options: argparse.Namespace) -> int:
    del options
    folder = _install.site_packages()
    try:
        deleted = _install.uninstall(folder)
    except OSError as error:
        return _fail("uninstall", f"cannot delete the files in {folder}: {error.strerror}", 1)
    _show("deleted", deleted)
    if not deleted:
        print(printable(f"nothing is installed in {folder}"))
    return 0


def _settings_file() -> str:
    """Return the path of the settings file that launched processes use; an empty text without one."""
    found = project.nearest(working_directory())
    return found[0] if found is not None and project.has_settings(*found) else ""


def _show(done: str, paths: list[Path]) -> None:
    for path in paths:
        print(printable(f"{done} {path}"))


def _fail(name: str, why: str, status: int) -> int:
    print(printable(f"ts-autotrack {name}: {why}"), file=sys.stderr)
    return status
