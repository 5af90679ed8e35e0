"""Transport for other programs: JSON lines in a file or on standard output."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ts_autotrack._core.transports.stream import DELIVERED, failed, write_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ts_autotrack.typing import Response


class JsonLinesTransport:
    """Appends one line for each item to a file, or to standard output for "-": `{"path": "/track", "item": {...}}`."""

    def __init__(self, path: str, write: Callable[[int, bytes], int] = os.write) -> None:
        self._path = path
        self._write = write
        self._torn = False  # True after a disk that filled up left half a line

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Append the items."""
        del timeout
        text = b"".join(b'{"path":"%b","item":%b}\n' % (path.encode(), body) for body in bodies)
        if self._path == "-":
            return write_to(sys.stdout, text.decode())
        try:
            self._append(b"\n" + text if self._torn else text)
        except OSError as error:
            return failed(self._path, error)
        return DELIVERED

    def close(self) -> None:
        """Nothing is open: the file is open during a write only, so it may be rotated at any time."""

    def _append(self, text: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while text:
                self._torn = True
                text = text[self._write(file, text) :]
            self._torn = False
        finally:
            os.close(file)
