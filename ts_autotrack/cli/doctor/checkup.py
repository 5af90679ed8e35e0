"""Runs all checks, each with a time limit."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ts_autotrack._core.parsers import working_directory
from ts_autotrack.cli._run import add_variables
from ts_autotrack.cli.doctor.application import check_application, check_command
from ts_autotrack.cli.doctor.command import Command, parse
from ts_autotrack.cli.doctor.exporter import check_exporter
from ts_autotrack.cli.doctor.findings import Finding, within
from ts_autotrack.cli.doctor.outbox import check_outbox
from ts_autotrack.cli.doctor.processes import check_processes, find_outbox
from ts_autotrack.cli.doctor.settings import check_key, check_settings, read_settings
from ts_autotrack.launcher._run import LaunchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.cli.doctor.settings import Settings


DISK_TIMEOUT = 15.0
"""Seconds for the checks of the outbox."""


def checkup(
    arguments: Sequence[str] = (), *, send: bool = False, pid: int | None = None, env_files: Sequence[str] = ()
) -> list[Finding]:
    """Return the findings of all checks.

    Args:
        arguments: Command that starts the application; default: the folder's settings and this Python.
        send: Send one test event.
        pid: Process whose report is read; default: all processes of the outbox.
        env_files: Files with KEY=value lines, from the option `--env-file` of `ts-autotrack doctor`. Files that the
            command itself names are read, too.
    """
    command = parse(arguments) if arguments else Command()
    if arguments and not command.program:
        seen = f"there is no program {command.name}"
        do = "Give the command as the application is started, after --."
        if command.name != arguments[0]:
            do = f"Install it, or run this command inside: {arguments[0]} run ts-autotrack doctor -- COMMAND."
        return [Finding("command", "error", seen, do)]
    if command.chdir and not Path(command.chdir).is_dir():
        return [Finding("command", "error", f"there is no folder {command.chdir}", "Correct the command's option.")]
    try:
        add_variables((*env_files, *command.env_files))
    except LaunchError as error:
        return [Finding("command", "error", str(error), "Correct the file, or its path.")]
    settings = read_settings(command.folder or working_directory(), named=bool(command.program))
    found = [*check_settings(settings), *check_key(settings)]
    if not command.program and (foreign := settings.from_file & _DESTINATIONS):
        found.append(_not_sent(settings, min(foreign)))
    else:
        found += check_exporter(settings.config, send=send)
    directory, about_process = find_outbox(settings.config.outbox.directory, pid)
    max_bytes = settings.config.outbox.max_bytes
    found += within(DISK_TIMEOUT, "outbox", partial(check_outbox, directory, max_bytes))
    found += about_process or within(DISK_TIMEOUT, "process", partial(check_processes, directory, pid))
    found += check_command(command)
    told = {finding.seen for finding in found}
    found += [
        finding for finding in check_application(command, command.python or sys.executable) if finding.seen not in told
    ]
    return found


_DESTINATIONS = frozenset({"endpoint", "jsonl_path"})
"""Settings that name a receiver of the key and of events."""


def _not_sent(settings: Settings, name: str) -> Finding:
    """Return the finding about a request that is not sent: the folder may be somebody else's checkout."""
    seen = f"{settings.file} names the {name}, so nothing was sent there without the application's command"
    return Finding("endpoint", "note", seen, "Run ts-autotrack doctor -- COMMAND if the file is your application's.")
