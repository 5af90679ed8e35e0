"""Checks of running processes, by the reports that they write into their outbox."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.config import SETTINGS
from ts_autotrack._core.notices import DROPS, OFF
from ts_autotrack._core.outbox.reports import report_files
from ts_autotrack.cli.doctor.findings import Finding, count

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REPORT = 2_000_000
"""Bytes of a report that are read."""
MAX_PLACES = 20
"""Places with unattributed events that are listed for each process."""


def outbox_of(pid: int) -> str:
    """Return the outbox directory in the environment of a process (Linux); an empty text without one.

    Raises:
        OSError: The process has ended, belongs to another user, or the system has no /proc.
    """
    variable = SETTINGS["outbox"].variable.encode() + b"="
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(variable) and entry != variable:
            value = Path(os.fsdecode(entry[len(variable) :])).expanduser()
            return str(Path(f"/proc/{pid}/cwd").readlink() / value)
    return ""


def find_outbox(directory: str | None, pid: int | None) -> tuple[str | None, list[Finding]]:
    """Return the outbox of a process, and findings about the search.

    Args:
        directory: Directory of the outbox in the settings.
        pid: Process whose environment may name another outbox; None for the outbox in the settings.
    """
    if pid is None:
        return directory, []
    try:
        found = outbox_of(pid)
    except OSError as error:
        if isinstance(error, FileNotFoundError | ProcessLookupError) and Path("/proc/self/environ").exists():
            seen = f"there is no process {pid}"
            return directory, [Finding("process", "error", seen, "Look up its id, with ps for example.")]
        seen = f"the environment of process {pid} cannot be read: {error.strerror}"
        do = "Run this command as the user of the process, on Linux."
        return directory, [Finding("process", "note", seen, do)]
    return found or directory, []


def check_processes(directory: str | None, pid: int | None) -> Iterator[Finding]:
    """Yield the findings about the processes of an outbox.

    Args:
        directory: Directory of the outbox.
        pid: Only this process; default: all processes of the outbox.
    """
    if directory is None:
        if pid is not None:
            seen = f"process {pid} has no outbox, and writes no report"
            yield Finding("process", "note", seen, "Set TS_AUTOTRACK_OUTBOX, or look at the warnings in its log.")
        return
    try:
        reports = {_pid(path): path for path in sorted(map(Path, report_files(directory)))}
    except FileNotFoundError:  # the directory is made at the first event
        reports = {}
    if pid is not None and pid not in reports:
        seen = f"process {pid} has written no report into {directory}"
        yield Finding("process", "note", seen, "It has no unattributed and no dropped events, or uses another outbox.")
    for process, path in reports.items():
        if pid in (None, process):
            yield from _report_findings(path)


def _pid(path: Path) -> int:
    return int(path.stem.removeprefix("process-"))


def _report_findings(path: Path) -> Iterator[Finding]:
    report = _read(path)
    if report is None:
        yield Finding("process", "note", f"{path} cannot be read", "Run this command as the user of the process.")
        return
    name = f"process {_pid(path)} ({report.get('program') or 'unknown program'})"
    stats = _table(report.get("stats"))
    figures = [f"{key} {stats[key]}" for key in ("accepted", "delivered", "pending", "rejected") if key in stats]
    yield Finding("process", "ok", f"{name}: {', '.join(figures) or 'no figures'}")
    if reason := report.get("off_reason"):
        cause, remedy = OFF.get(reason, (reason, "See its settings and log."))
        yield Finding("process", "warning", f"{name} sends no events: {cause}", remedy)
    yield from _places(name, _list(report.get("unattributed")))
    for reason, number in _table(report.get("drops")).items():
        cause, remedy = {**DROPS, "shutdown": OFF["shutdown"]}.get(reason, ("", ""))
        if number and remedy and reason != "unattributed":
            seen = f"{name}: {count(number, 'event')} dropped as {reason}: {cause}"
            yield Finding("process", "warning", seen, remedy)


def _places(name: str, entries: list[Any]) -> Iterator[Finding]:
    """Yield the places whose events have no user."""
    places = [entry for entry in entries if isinstance(entry, dict)]
    for place in places[:MAX_PLACES]:
        times = count(int(place.get("count") or 0), "time")
        event = place.get("feature") or place.get("event") or "an event"
        seen = f"{name}: {event} without a user at {place.get('place')}, {times}"
        yield Finding("unattributed", "warning", seen, DROPS["unattributed"][1])
    if len(places) > MAX_PLACES:
        yield Finding("unattributed", "note", f"{name}: {count(len(places) - MAX_PLACES, 'place')} more")


def _read(path: Path) -> dict[str, Any] | None:
    """Return a report; None if it is no JSON object, too long, or belongs to another user."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            report = json.loads(file.read(MAX_REPORT))
    except (OSError, ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) else None


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
