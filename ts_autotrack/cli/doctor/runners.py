"""Commands in front of the application's command: `ts-autotrack run`, `poetry run`, `uv run` and the like.

Nothing is run to find an environment: uv would install packages for that.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ts_autotrack._core.config import environment
from ts_autotrack._core.parsers import working_directory

_FOLDERS = ("--directory", "-C", "--cwd")
"""Options of a runner that name the working directory."""
_WITH_VALUE = {
    "uv": (
        *("--with", "--with-editable", "--with-requirements", "--python", "-p", "--extra", "--group", "--no-group"),
        *("--only-group", "--no-extra", "--env-file", "--project", "--package", "--index", "--default-index"),
        *("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--cache-dir", "--config-file", "--color"),
        *("--refresh-package", "--upgrade-package", "-P", "--link-mode", "--exclude-newer"),
        *("--allow-insecure-host", "--python-platform", "-w", *_FOLDERS),
    ),
    "poetry": ("--project", "-P", *_FOLDERS),
    "pipenv": ("--python",),
    "pdm": ("--project", "-p", "--config", "-c", "--venv"),
}
"""Options whose value may be the next argument, by the name of the runner."""
_OWN = "ts-autotrack"


class Unwrapped(NamedTuple):
    """A command without the commands in front.

    Attributes:
        arguments: The command.
        launched: True below `ts-autotrack run`.
        env_files: Arguments of the options `--env-file` of `ts-autotrack run` and `uv run`.
        folder: Working directory that a runner changes to; an empty text for the present one.
        path: PATH of the command; None for the present one.
    """

    arguments: list[str]
    launched: bool = False
    env_files: tuple[str, ...] = ()
    folder: str = ""
    path: str | None = None


def unwrap(arguments: list[str]) -> Unwrapped:
    """Return a command without `ts-autotrack run`, `uv run`, `poetry run`, `pipenv run` and `pdm run` in front."""
    found = Unwrapped(arguments)
    while found.arguments:
        name = Path(found.arguments[0]).name
        own = _options(found.arguments[1:], ("--env-file",) if name == _OWN else _WITH_VALUE.get(name))
        if own is None:
            break
        values, rest = own
        files = (*found.env_files, *(value for option, value in values if option == "--env-file"))
        if name == _OWN:
            found = found._replace(arguments=rest, launched=True, env_files=files)
            continue
        folder = next((value for option, value in values if option in _FOLDERS), found.folder)
        path = _environment_path(name, folder or working_directory())
        found = Unwrapped(_for_python(rest), found.launched, files, folder, path)
    return found


def _options(
    arguments: list[str], with_value: tuple[str, ...] | None
) -> tuple[list[tuple[str, str]], list[str]] | None:
    """Return the options with their values, and the command behind them; None if it is no `run` of a runner."""
    if with_value is None:
        return None
    values, position, running = [], 0, False
    while position < len(arguments):
        option, sign, value = arguments[position].partition("=")
        if option == "--" and running:
            position += 1
            break
        if option == "run" and not running:
            running = True
        elif option in ("-m", "--module") or not option.startswith("-"):
            break
        elif option in with_value:
            position += not sign
            values.append((option, value if sign else "".join(arguments[position : position + 1])))
        position += 1
    return (values, arguments[position:]) if running and arguments[position:] else None


def _for_python(arguments: list[str]) -> list[str]:
    """Return the command of `uv run app.py` and `uv run -m app` as one of Python."""
    if arguments[0] in ("-m", "--module"):
        return ["python", "-m", *arguments[1:]]
    return ["python", *arguments] if arguments[0].endswith((".py", ".pyw")) else arguments


def _environment_path(runner: str, folder: str) -> str:
    """Return PATH with the project's environment in front: the active one, except for uv, or `.venv` upwards."""
    chosen = environment("UV_PROJECT_ENVIRONMENT") if runner == "uv" else environment("VIRTUAL_ENV")
    start = Path(folder).absolute()
    found = [start / chosen] if chosen else [place / ".venv" for place in (start, *start.parents)]
    commands = "Scripts" if os.name == "nt" else "bin"
    places = [str(place / commands) for place in found if (place / commands).is_dir()][:1]
    return os.pathsep.join([*places, environment("PATH")])
