"""Starts a command whose Python processes load the library by themselves: below `ts-autotrack run`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ts_autotrack._core.config import LAUNCHED_FROM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOTSTRAP = Path(__file__).parent / "bootstrap"
"""Folder of the sitecustomize module that starts the library."""
NOT_FOUND = 127
"""Exit status for a command that does not exist, as in a shell."""
NOT_EXECUTABLE = 126
"""Exit status for a command that cannot be started, as in a shell."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class LaunchError(Exception):
    """The command was not started. The message says why.

    Attributes:
        status: Exit status of `ts-autotrack run`.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def launch(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Replace this process by a command. On Windows, run it as a child process and return its exit status.

    Args:
        command: Program and arguments. The program is looked for on PATH.
        variables: Environment of the command, as `environment_of` returns it.

    Raises:
        LaunchError: If the command cannot be started.
    """
    program = command[0]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if sys.platform == "win32":  # pragma: no cover - the suite runs on Linux
            return _run_as_child(command, variables)
        os.execvpe(program, list(command), variables)
    except (FileNotFoundError, NotADirectoryError):
        raise LaunchError(NOT_FOUND, f"{program}: there is no such command") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LaunchError(NOT_EXECUTABLE, f"{program} cannot be started: {reason}") from None


def environment_of(current: Mapping[str, str], files: Sequence[str], folder: str) -> dict[str, str]:
    """Return the environment of a launched command.

    Args:
        current: Environment of this process. Its variables win over the files.
        files: Paths of files with KEY=value lines. A later file wins over an earlier one.
        folder: Working directory.

    Raises:
        LaunchError: If a file cannot be read.
    """
    variables = {**variables_of(files), **current}
    others = [entry for entry in variables.get("PYTHONPATH", "").split(os.pathsep) if entry != str(BOOTSTRAP)]
    # An empty entry means the working directory: an empty PYTHONPATH must not become one.
    variables["PYTHONPATH"] = os.pathsep.join([str(BOOTSTRAP), *(others if any(others) else ())])
    variables[LAUNCHED_FROM] = folder
    return variables


def variables_of(files: Sequence[str]) -> dict[str, str]:
    """Return the variables of files with KEY=value lines. A later file wins over an earlier one.

    Raises:
        LaunchError: If a file cannot be read.
    """
    variables: dict[str, str] = {}
    for path in files:
        variables.update(read_environment_file(path))
    return variables


def read_environment_file(path: str) -> dict[str, str]:
    """Return the variables of a file with KEY=value lines.

    Empty lines and lines that start with `#` are skipped, and so is the word `export` before a name. One pair of quotes
    around the whole value is removed. Nothing else is interpreted: no `$NAME`, no backslash, no comment after a value.

    Raises:
        LaunchError: If the file cannot be read, or a line is no KEY=value line. The message shows no value.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise LaunchError(2, f"--env-file {path} cannot be read: {reason}") from None
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        name = name.strip().removeprefix("export ").strip()
        if not equals or not _NAME.fullmatch(name) or "\0" in value:
            raise LaunchError(2, f"--env-file {path}, line {number}: write KEY=value")
        variables[name] = _without_quotes(value.strip())
    return variables


def _without_quotes(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value


def _run_as_child(command: Sequence[str], variables: Mapping[str, str]) -> int:  # pragma: no cover - on Windows only
    with subprocess.Popen(command, env=dict(variables)) as process:
        while process.poll() is None:
            with contextlib.suppress(KeyboardInterrupt):  # the console sends Ctrl-C to the command, too
                process.wait()
        return process.returncode
