"""Transport for other programs: JSON lines in a file or on standard output."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ts_autotrack._core.redaction import printable_json
from ts_autotrack._core.transports.stream import DELIVERED, LineWriter, StreamWriter, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ts_autotrack.typing import Response

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
"""Not blocking: a named pipe without a reader would hold the thread."""


def append_lines(path: str, lines: Sequence[bytes]) -> None:
    """Append lines to a file. Each line is one write, so that the lines of several processes stay whole.

    Raises:
        OSError: If the file cannot be opened or written.
    """
    if not lines:
        return
    file = os.open(path, _FLAGS, 0o600)
    try:
        for line in lines:
            written = os.write(file, line)
            while written < len(line):  # pragma: no cover - the disk is nearly full, or the file is a pipe
                written += os.write(file, line[written:])
    finally:
        os.close(file)


class JsonLinesTransport:
    """Appends one line for each item to a file, or to standard output for "-": `{"path": "/track", "item": {...}}`."""

    def __init__(self, path: str, write: Callable[[int, bytes], int] = os.write) -> None:
        self._path = path
        self._lines = LineWriter(write)
        self._stream = StreamWriter()

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Append the items."""
        lines = [b'{"path":"%b","item":%b}\n' % (path.encode(), body) for body in bodies]
        if self._path == "-":
            shown = [f"{printable_json(line[:-1].decode())}\n".encode() for line in lines]  # it may be a terminal
            return self._stream.write(sys.stdout, shown, timeout)
        try:
            self._append(lines, timeout)
        except OSError as error:
            return failed(self._path, error)
        return DELIVERED

    def close(self) -> None:
        """Nothing is open: the file is open during a write only, so it may be rotated at any time."""

    def _append(self, lines: Sequence[bytes], timeout: float) -> None:
        file = os.open(self._path, _FLAGS, 0o600)
        try:
            self._lines.write(file, lines, timeout)
        finally:
            os.close(file)
