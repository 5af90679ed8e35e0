"""Runs the checks that need the application's own Python and modules, in a child process with a time limit.

The child imports modules of the application, so the application's code at module level runs there. The child tracks
into memory: no event, no file and no request of this library leaves it. A crash, an endless import or a server that an
import starts costs the child only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.config import LAUNCHED_FROM, all_variables, environment
from ts_autotrack._core.parsers import working_directory
from ts_autotrack.cli.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ts_autotrack.cli.doctor.command import Command

TIMEOUT = 30.0
"""Seconds for all imports of the application."""
MAX_REPORT = 2_000_000
"""Bytes of the child's findings that are read."""
_MARK = "_TS_AUTOTRACK_DOCTOR"
"""Variable that marks the child and the processes that it starts."""
_SIGNALLED = 128
"""Exit status of a process that a signal has ended, less the signal's number, as in a shell."""
_CODE = "import sys; from ts_autotrack.cli.doctor.probe import main; main(*sys.argv[1:])"
_OFF = ("TS_AUTOTRACK_DISABLED", "DO_NOT_TRACK", "TS_AUTOTRACK_OUTBOX")
"""Variables that the child does without: the checks shall see the application as if the library were on."""


def check_command(command: Command) -> Iterator[Finding]:
    """Yield the findings about the command itself."""
    if command.python:
        yield from _ignored_launcher(command)
        return
    if command.program:
        seen = f"the interpreter of {command.program} is unknown: its first line names no Python"
        yield Finding("command", "note", seen, "Give a command that Python runs, such as gunicorn or python -m myapp.")


def check_application(command: Command, python: str, timeout: float = TIMEOUT) -> list[Finding]:
    """Return the findings of the child process.

    Args:
        command: The application's command; an empty one if none is given.
        python: Interpreter of the child.
        timeout: Seconds until the child is killed.
    """
    folder = command.folder or working_directory()
    task = {
        "folder": folder,
        "script": command.script,
        "chdir": command.chdir,
        "modules": command.modules,
        "django": bool(command.django),
        "launched": command.launched or bool(environment(LAUNCHED_FROM)),
        "known": bool(command.program),
    }
    with tempfile.TemporaryDirectory() as scratch:
        report, errors = Path(scratch, "report"), Path(scratch, "errors")
        report.touch()
        arguments = [python, "-c", _CODE, json.dumps(task), str(report)]
        try:
            with errors.open("wb") as stderr:
                code = _run(arguments, _environment(command, folder), stderr, timeout)
        except OSError as error:  # the first line of a program names a Python that was removed
            do = "Make the virtual environment anew, or give the command of the one in use."
            return [Finding("application", "error", f"{python} cannot be started: {error.strerror}", do)]
        found, activity = _read(report)
        found = [finding for finding in found if not _is_repeated(finding, found)]
        if activity != "end":
            found.append(_broken(code, activity, errors.read_text(errors="replace"), timeout))
    return found


def _environment(command: Command, folder: str) -> dict[str, str]:
    kept = {name: value for name, value in all_variables().items() if name not in _OFF}
    if command.django:
        kept.setdefault("DJANGO_SETTINGS_MODULE", command.django)
    own = {"TS_AUTOTRACK_EXPORTER": "memory", LAUNCHED_FROM: folder, "PYTHONDONTWRITEBYTECODE": "1"}
    own["TS_AUTOTRACK_JSONL_PATH"] = "-"  # processes that an import starts would append their events to the file
    return {**kept, **own}


def _run(arguments: list[str], environment: dict[str, str], stderr: Any, timeout: float) -> int | None:
    """Return the exit status of the child; None if it was killed at its time limit."""
    mark = uuid.uuid4().hex
    with _signals_raise():
        process = subprocess.Popen(  # noqa: S603 - the operator's own command names the interpreter
            arguments,
            env={**environment, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill(process, f"{_MARK}={mark}".encode())


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise, as Ctrl-C does: the child is killed before this command ends."""
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                previous[number] = signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(_SIGNALLED + number)


def _kill(process: subprocess.Popen[bytes], mark: bytes) -> None:
    """Kill the child and its own children, which an import may have started.

    Args:
        process: The child.
        mark: Entry in the environment of the child and of its children, which may have sessions of their own (Linux).
    """
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def _read(report: Path) -> tuple[list[Finding], str]:
    """Return the child's findings, and the activity that it began last."""
    found, activity = [], "the application's Python"
    with report.open("rb") as file:
        lines = file.read(MAX_REPORT).decode(errors="replace").splitlines()
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:  # the child was killed in the middle of a line
            break
        if isinstance(entry, str):
            activity = entry
        else:
            found.append(Finding(*entry))
    return found, activity


def _is_repeated(finding: Finding, found: list[Finding]) -> bool:
    """Return True for a logged warning about a function that has a finding of its own."""
    keys = [other.seen.partition(" = ")[0] for other in found if other.check == "target" and other.level == "error"]
    return finding.check == "log" and any(f"'{key}'" in finding.seen for key in keys)


def _broken(code: int | None, activity: str, errors: str, timeout: float) -> Finding:
    """Return the finding about a child that did not reach its end."""
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "no message")
    if code is None:
        do = "Start servers and other work below `if __name__ == '__main__':` only, not while a module is imported."
        return Finding("application", "error", f"{activity} did not end within {timeout:g} s", do)
    if "No module named 'ts_autotrack" in last:
        do = "Install ts_autotrack there: python -m pip install ts_autotrack, with this interpreter."
        return Finding("application", "error", "the application's Python has no ts_autotrack, or an older one", do)
    do = "Import the module by hand with the same interpreter to see the whole traceback."
    return Finding("application", "error", f"{activity} ended the process with status {code}: {last}", do)


def _ignored_launcher(command: Command) -> Iterator[Finding]:
    given = [word for word in command.options if not word.startswith(("--", "-W", "-X"))]
    flags = "".join(flag for flag in "IES" if any(flag in word for word in given))
    if flags:
        option = f"-{flags[0]}"
        seen = f"Python's option {option} makes the command ignore `ts-autotrack run`"
        do = f"Remove {option}, or let the application's first line be `import ts_autotrack.auto`."
        yield Finding("command", "warning", seen, do)
