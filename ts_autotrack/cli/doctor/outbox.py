"""Checks of the outbox: directory, disk, and waiting, refused and unreadable events. No event is changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ts_autotrack._core.outbox import inspection
from ts_autotrack._core.outbox.paths import measure
from ts_autotrack.cli.doctor.findings import Finding, count

if TYPE_CHECKING:
    from collections.abc import Iterator

NETWORK_DISKS = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "afs", "fuse.sshfs", "fuse.s3fs", "vboxsf")
"""Beginnings of the types of file systems on which SQLite's locks are not reliable."""
_DISK = "Use a directory on a local disk."
GIGABYTE = 1_000
"""Megabytes of a gigabyte."""
NEARLY_FULL = 0.8
"""Share of OUTBOX_BYTES from which on an outbox is nearly full."""


def check_outbox(directory: str | None, max_bytes: int) -> Iterator[Finding]:
    """Yield the findings about an outbox.

    Args:
        directory: Directory; None without an outbox.
        max_bytes: The setting OUTBOX_BYTES.
    """
    if directory is None:
        seen = "no outbox: events wait in memory, and a crash or SIGKILL loses unsent ones"
        yield Finding("outbox", "note", seen, "Set TS_AUTOTRACK_OUTBOX to a directory of this application's own.")
        return
    if not os.path.lexists(directory):
        yield _missing(directory)
        return
    if not Path(directory).is_dir():
        yield Finding("outbox", "error", f"{directory} is no directory", "Name another path in TS_AUTOTRACK_OUTBOX.")
        return
    yield from _permissions(directory)
    yield from _disk(directory, max_bytes)
    try:
        yield from _contents(directory, max_bytes)
    except (inspection.InspectionError, OSError, sqlite3.Error) as error:
        yield Finding("outbox", "error", f"{directory} cannot be read: {error}", "Check its owner and permissions.")


def _missing(directory: str) -> Finding:
    parent = next(folder for folder in Path(directory).parents if folder.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return Finding("outbox", "ok", f"{directory} is made at the first event")
    seen = f"{directory} is missing, and this user may not make it in {parent}"
    return Finding("outbox", "error", seen, f"Run mkdir -p {directory}, and give it to the application's user.")


def _permissions(directory: str) -> Iterator[Finding]:
    found = Path(directory).stat()
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        seen = f"this user may not write to {directory}: events wait in memory"
        yield Finding("outbox", "error", seen, "Give the directory to the user of the application: chown.")
        return
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        seen = f"{directory} belongs to the user {_name(found.st_uid)}, and this command runs as {_name(os.geteuid())}"
        yield Finding("outbox", "note", seen, "Run this command as the application's user to check its permissions.")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        seen = f"{directory} has mode {stat.S_IMODE(found.st_mode):04o}: other users may see or change the events"
        yield Finding("outbox", "warning", seen, f"Run chmod 700 {directory}.")
    else:
        yield Finding("outbox", "ok", f"{directory} is writable and private")


def _name(user: int) -> str:
    try:
        import pwd  # lazily: not on Windows

        return pwd.getpwuid(user).pw_name
    except (ImportError, KeyError):
        return str(user)


def _disk(directory: str, max_bytes: int) -> Iterator[Finding]:
    kind = file_system(directory)
    if kind.startswith(NETWORK_DISKS):
        seen = f"{directory} is on a network disk ({kind}), where SQLite's locks are not reliable"
        yield Finding("outbox", "error", seen, _DISK)
    elif kind == "tmpfs":
        seen = f"{directory} is in memory (tmpfs): a restart of the machine loses events"
        yield Finding("outbox", "warning", seen, _DISK)
    elif kind == "overlay":
        seen = f"{directory} is part of the container (overlay): its events are lost with the container"
        yield Finding("outbox", "note", seen, "Mount a volume there.")
    free = shutil.disk_usage(directory).free
    if free < max_bytes:
        seen = f"{_size(free)} are free, less than TS_AUTOTRACK_OUTBOX_BYTES={max_bytes}"
        yield Finding("outbox", "warning", seen, "Free some space, or lower the setting.")
    else:
        yield Finding("outbox", "ok", f"{_size(free)} are free on its disk")


def file_system(directory: str, mounts: str = "/proc/self/mounts") -> str:
    """Return the type of the file system of a directory; an empty text if unknown, as on systems without /proc."""
    path, best = Path(directory).resolve(), ("", "")
    try:
        lines = Path(mounts).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        place = fields[1].replace("\\040", " ")
        if path.is_relative_to(place) and len(place) >= len(best[0]):  # a later mount hides an earlier one
            best = (place, fields[2])
    return best[1]


def _contents(directory: str, max_bytes: int) -> Iterator[Finding]:
    used = sum(measure(directory).values())
    files = inspection.file_statuses(directory)
    waiting = count(sum(file.pending for file in files), "event")
    seen = f"{waiting} waiting in {count(len(files), 'file')}, {_size(used)} of {_size(max_bytes)}"
    if used > NEARLY_FULL * max_bytes:
        do = "Find out why nothing is delivered; at the limit new events are refused as outbox_full."
        yield Finding("outbox", "warning", f"nearly full: {seen}", do)
    else:
        yield Finding("outbox", "ok", seen)
    left = sum(file.pending for file in files if not file.in_use and not file.problem)
    if left:
        do = "A running process of this outbox takes them within about 5 seconds; otherwise start one."
        yield Finding("outbox", "warning", f"{count(left, 'event')} of ended processes", do)
    for file in files:
        if file.problem:
            do = "Look at it with `ts-autotrack outbox status`, as the application's user."
            yield Finding("outbox", "warning", f"{Path(file.path).name} cannot be read: {file.problem}", do)
    if corrupt := inspection.corrupt_files(directory):
        seen = f"{count(len(corrupt), 'unreadable file')} set aside, such as {corrupt[0]}"
        yield Finding("outbox", "warning", seen, "Check the disk; delete the files if nobody needs them.")
    if rejected := inspection.rejected_items(directory):
        seen = f"{count(len(rejected), 'event')} refused by the server, at last: {rejected[-1][1].reason}"
        yield Finding("outbox", "warning", seen, "See `ts-autotrack outbox list`, then run retry or purge.")


def _size(number: int) -> str:
    megabytes = number / 1_000_000
    return f"{megabytes:.1f} MB" if megabytes < GIGABYTE else f"{megabytes / GIGABYTE:.1f} GB"
