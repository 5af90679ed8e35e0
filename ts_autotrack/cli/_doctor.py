"""`ts-autotrack doctor`: checks an application's settings, network, outbox and code, and says what to do."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._version import __version__
from ts_autotrack.cli.doctor.checkup import checkup
from ts_autotrack.cli.doctor.findings import LEVELS, count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.cli.doctor.findings import Finding

MAX_PID = 2**31 - 1
"""Largest id of a process."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell."""
COLOURS = {"ok": "32", "note": "36", "warning": "33", "error": "31"}
"""Colours of the levels on a terminal, as SGR codes."""


def add_doctor(commands: Any) -> None:
    """Add the command to the parser's commands."""
    doctor = commands.add_parser(
        "doctor",
        usage="ts-autotrack doctor [-h] [--send] [--json] [--pid PID] [--env-file FILE] [-- COMMAND ...]",
        help="check settings, network, outbox and code, and say what to do",
        description="Reads the settings as an application started in this folder would, sends one request without an "
        "event, and imports the application's modules in a child process with a time limit: code at their module level "
        "runs there, a script does not. No event is sent or changed; --send sends one. Exit status: 0 if no "
        "finding is an error, 1 otherwise, 2 for a wrong command line.",
    )
    doctor.add_argument("--send", action="store_true", help="send one event ts_autotrack_doctor of a user of that name")
    doctor.add_argument("--json", action="store_true", help="print one JSON object with version, findings and ok")
    doctor.add_argument("--pid", type=_pid, help="look at this running process only, and at its outbox")
    doctor.add_argument(
        "--env-file",
        action="append",
        default=[],
        metavar="FILE",
        help="read the application's variables from a file, as `ts-autotrack run --env-file` does; a command's own "
        "`--env-file` is read without this option",
    )
    doctor.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="how the application is started, such as: -- gunicorn myapp:app",
    )
    doctor.set_defaults(run=_doctor)


def _pid(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= MAX_PID):
        message = "a process id is a whole number"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _doctor(options: argparse.Namespace) -> int:
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        findings = [
            finding.safe()
            for finding in checkup(command, send=options.send, pid=options.pid, env_files=options.env_file)
        ]
    except KeyboardInterrupt:
        return INTERRUPTED
    ok = all(finding.level != "error" for finding in findings)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for a terminal in ASCII
    try:
        if options.json:
            rows = [finding._asdict() for finding in findings]
            print(json.dumps({"version": __version__, "findings": rows, "ok": ok}, indent=2))
        else:
            _show(findings)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if ok else 1


def _show(findings: Sequence[Finding]) -> None:
    """Print the findings in aligned columns, and their numbers by level."""
    width = max(len(finding.check) for finding in findings)
    for check, level, seen, do in findings:
        print(f"{_coloured(level, f'{level:7}')}  {check:{width}}  {seen}")
        if do and level != "ok":
            print(f"{'':7}  {'':{width}}  -> {do}")
    levels = [finding.level for finding in findings]
    numbers = (count(levels.count(level), level) for level in reversed(LEVELS[1:]) if level in levels)
    print(", ".join(numbers) or "everything is all right")


def _coloured(level: str, text: str) -> str:
    return f"\033[{COLOURS[level]}m{text}\033[0m" if sys.stdout.isatty() else text
