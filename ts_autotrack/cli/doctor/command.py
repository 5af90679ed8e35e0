"""The application's command: its interpreter, that interpreter's options, and the modules that the command names."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ts_autotrack.cli.doctor.runners import unwrap

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_HEAD = 4_096
"""Bytes of a program's file that may name its interpreter."""

_PYTHON = re.compile(r"(python|pypy)[0-9.]*t?(\.exe)?", re.IGNORECASE)
_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_][\w.]*(?:\(.*\))?")
"""Argument such as `myapp.main:app`."""
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_EXEC = re.compile(rb"'''exec' (?:\"([^\"]+)\"|(\S+)) ")
"""Second line of a script that pip made for an interpreter with a long path."""
_SETTINGS_MODULE = re.compile(r"DJANGO_SETTINGS_MODULE[\"']\s*,\s*[\"']([\w.]+)")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
"""Options of Python whose value may be the next argument."""
_NAMED = ("gunicorn", "dramatiq")
"""Programs whose arguments name modules, also without a colon."""
_CHDIR = ("--chdir", "--workdir", "--app-dir")
"""Options of gunicorn, Celery and uvicorn that name the folder from which they import."""
_FLAGS = ("--preload", "--reload", "--daemon", "-D")
"""Options of these programs without a value."""


class Command(NamedTuple):
    """A command, as far as its arguments and files tell without running it.

    Attributes:
        program: Path of the program; an empty text if there is none.
        python: Path of its interpreter; an empty text if it is no Python program.
        options: Options of the interpreter.
        script: Path of the script that Python runs; an empty text for a module or an installed command.
        modules: Modules that the arguments name.
        django: Name of Django's settings module in a `manage.py`.
        launched: True below `ts-autotrack run`.
        env_files: Files named by `--env-file` of `ts-autotrack run` or `uv run` in front of the program.
        name: The program as the command names it.
        chdir: Working directory that an option such as gunicorn's `--chdir` names; an empty text without one.
    """

    program: str = ""
    python: str = ""
    options: tuple[str, ...] = ()
    script: str = ""
    modules: tuple[str, ...] = ()
    django: str = ""
    launched: bool = False
    env_files: tuple[str, ...] = ()
    name: str = ""
    chdir: str = ""

    @property
    def folder(self) -> str:
        """Folder of the first imports: of the script, or `chdir`; an empty text for the working directory."""
        return str(Path(self.script).parent) if self.script else self.chdir


def parse(arguments: Sequence[str]) -> Command:
    """Return the facts about a command. `ts-autotrack run`, `poetry run` and the like in front of it are left out."""
    found = unwrap(list(arguments))
    command = _parse(found.arguments, found.path, found.folder)
    chdir = str(Path(found.folder, command.chdir).absolute()) if found.folder or command.chdir else ""
    return command._replace(launched=found.launched, env_files=found.env_files, name=found.arguments[0], chdir=chdir)


def _parse(arguments: Sequence[str], path: str | None, folder: str) -> Command:
    program = shutil.which(arguments[0], path=path) or ""
    if not program:
        return Command()
    return _program(program, arguments, folder)._replace(chdir=_value_of(_CHDIR, arguments[1:]))


def _program(program: str, arguments: Sequence[str], folder: str) -> Command:
    name = Path(program).name
    if not _PYTHON.fullmatch(name):
        interpreter, options = _interpreter(program)
        return Command(program, interpreter, options, modules=_modules(name, arguments[1:]))
    options, rest = _split(arguments[1:])
    if rest[:1] == ["-m"]:
        return Command(program, program, options, modules=_modules(rest[1] if rest[1:] else "", rest[2:]))
    path = Path(folder, rest[0]) if rest else Path()
    script = str(path.absolute()) if path.is_file() else ""
    return Command(program, program, options, script, _modules("", rest[1:]), _django_settings(script))


def _split(arguments: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the options of Python, and the rest: a script or `-m module`, with arguments."""
    position = 0
    while position < len(arguments) and arguments[position].startswith("-") and len(arguments[position]) > 1:
        option = arguments[position]
        if not option.startswith("--") and option[-1] in "mc":
            break
        position += 2 if option in _WITH_VALUE else 1
    options, rest = list(arguments[:position]), list(arguments[position:])
    if rest and len(rest[0]) > len("-m") and rest[0].startswith("-"):  # -Im module
        options.append(rest[0][:-1])
        rest[0] = f"-{rest[0][-1]}"
    return tuple(options), rest


def _interpreter(program: str) -> tuple[str, tuple[str, ...]]:
    """Return the interpreter in the first lines of a script, with its options; an empty text without one."""
    try:
        with Path(program).open("rb") as file:
            head = file.read(MAX_HEAD)
    except OSError:
        return "", ()
    if not head.startswith(b"#!"):
        return "", ()
    if (long := _EXEC.search(head)) is not None:
        return os.fsdecode(long[1] or long[2]), ()
    words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
        words[:1] = [shutil.which(words[0]) or ""] if words else []
    is_python = bool(words) and _PYTHON.fullmatch(Path(words[0]).name) is not None
    return (words[0], tuple(words[1:])) if is_python else ("", ())


def _modules(program: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the modules of the application in the arguments of a server, a worker or a tool."""
    found = [match[1] for argument in arguments if (match := _TARGET.fullmatch(argument)) is not None]
    if named := _value_of(("-A", "--app"), arguments):
        found.append(named.partition(":")[0].removesuffix(".py"))
    if program in _NAMED and not found:
        before = ("", *arguments)
        found += [
            name for option, name in zip(before, arguments, strict=False) if option in _FLAGS or option[:1] != "-"
        ]
    return tuple(dict.fromkeys(name for name in found if _NAME.fullmatch(name)))


def _value_of(names: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the value of an option, as `--name VALUE` or `--name=VALUE`; an empty text without the option."""
    for argument, following in zip(arguments, (*arguments[1:], ""), strict=False):
        name, sign, value = argument.partition("=")
        if name in names:
            return value if sign else following
    return ""


def _django_settings(script: str) -> str:
    if Path(script).name != "manage.py":
        return ""
    try:
        match = _SETTINGS_MODULE.search(Path(script).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return match[1] if match else ""
