"""Reports of running processes in the directory of an outbox, for `ts-autotrack doctor`.

A report is no event: the files count neither as events nor towards the limit on the bytes of the directory. A disk that
is full or broken means no report.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress

from ts_autotrack._core.outbox.paths import create_private
from ts_autotrack._core.process_id import started_at

_NAME = re.compile(r"process-(\d{1,10})\.json(\.new)?")
"""Name of a report, or of a report that is being written."""


class ReportFile:
    """The report of this process."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._process = os.getpid()
        self._path = os.path.join(directory, f"process-{self._process}.json")

    @property
    def exists(self) -> bool:
        """True if the file is there."""
        return os.path.exists(self._path)

    def write(self, report: bytes) -> None:
        """Write or replace the file; leave it out if the disk does not take it."""
        new = f"{self._path}.new"
        with suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                os.unlink(new)  # of an ended process with the same id
            try:
                create_private(new)
                with open(new, "wb") as file:
                    file.write(report)
                os.replace(new, self._path)
            except OSError:
                os.unlink(new)

    def remove_stale(self) -> None:
        """Delete the files of ended processes."""
        remove_stale(self._directory)

    def remove(self) -> None:
        """Delete the file at the end of the process; a forked child leaves its parent's file alone."""
        if os.getpid() == self._process:
            with suppress(OSError):
                os.unlink(self._path)


def report_files(directory: str) -> list[str]:
    """Return the paths of the reports of running processes.

    Raises:
        OSError: The directory cannot be read.
    """
    return [path for path, process in _found(directory) if path.endswith(".json") and _is_current(path, process)]


def remove_stale(directory: str) -> None:
    """Delete the reports of ended processes."""
    with suppress(OSError):
        for path, process in _found(directory):
            if not _is_current(path, process):
                with suppress(OSError):
                    os.unlink(path)


def _found(directory: str) -> list[tuple[str, int]]:
    """Return path and process id of each report."""
    matches = map(_NAME.fullmatch, os.listdir(directory))
    return [(os.path.join(directory, match[0]), int(match[1])) for match in matches if match is not None]


def _is_current(path: str, process: int) -> bool:
    """Return False if the process that wrote a file has ended. Its id may belong to a later process now."""
    if sys.platform == "win32":  # pragma: no cover - the suite runs on Linux
        return _is_running(process)
    try:
        os.kill(process, 0)
        return started_at(process) <= os.stat(path).st_mtime_ns or not os.path.exists("/proc/self/stat")
    except PermissionError:
        return True  # a process of another user
    except (OSError, OverflowError):
        return False


if sys.platform == "win32":  # pragma: no cover - the suite runs on Linux

    def _is_running(process: int) -> bool:
        """Return True if a process runs, or if it belongs to another user. `os.kill(process, 0)` would send Ctrl-C."""
        import ctypes  # lazily: needed on Windows only

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = kernel.OpenProcess(_SYNCHRONIZE, False, process)
        if not handle:
            return ctypes.get_last_error() == _ACCESS_DENIED
        try:
            return bool(kernel.WaitForSingleObject(ctypes.c_void_p(handle), 0) == _WAIT_TIMEOUT)
        finally:
            kernel.CloseHandle(ctypes.c_void_p(handle))

    _SYNCHRONIZE, _ACCESS_DENIED, _WAIT_TIMEOUT = 0x100000, 5, 258
