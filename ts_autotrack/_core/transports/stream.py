"""Lines for standard streams and files, written within a request's time."""

from __future__ import annotations

import io
import os
import time
from typing import TYPE_CHECKING

from ts_autotrack._core.descriptors import wait_writable
from ts_autotrack.typing import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TextIO

DELIVERED = Response(200)
CHUNK = 4_096
"""Bytes of one write: a pipe that takes data takes these at once, without a pause and undivided."""


class LineWriter:
    """Writes batches of lines to a descriptor that may stall, as a pipe does when nobody reads.

    A batch that was not finished in time is sent again; the lines that were written are not.
    """

    def __init__(self, write: Callable[[int, bytes], int] = os.write) -> None:
        self._write = write
        self._written: list[bytes] = []  # of the unfinished batch
        self._torn = False  # True after half a line

    def write(self, file: int, lines: Sequence[bytes], timeout: float) -> None:
        """Write lines; each ends with a newline.

        Raises:
            OSError: If the descriptor takes no data for the whole time, or a write fails.
        """
        deadline = time.monotonic() + timeout
        earlier, position = self._written, 0
        while position < min(len(earlier), len(lines)) and earlier[position] == lines[position]:
            position += 1
        self._written = earlier[position:] if position == len(lines) else []
        try:
            while position < len(lines):
                chunk = _chunk(lines, position)
                self._put(file, b"".join(chunk), deadline)
                position += len(chunk)
        except OSError:
            self._written = list(lines[:position])
            raise

    def _put(self, file: int, text: bytes, deadline: float) -> None:
        if self._torn:
            text = b"\n" + text
        while text:
            if not wait_writable(file, deadline):
                message = "nobody reads it at the moment"
                raise TimeoutError(message)
            torn, self._torn = self._torn, True
            try:
                text = text[self._write(file, text[:CHUNK]) :]
            except BlockingIOError:  # another writer was faster
                self._torn = torn
        self._torn = False


class StreamWriter:
    """Writes lines to a standard stream, as UTF-8 whatever its encoding is."""

    def __init__(self) -> None:
        self._lines = LineWriter()

    def write(self, stream: TextIO | None, lines: Sequence[bytes], timeout: float) -> Response:
        """Write lines, past the buffer of a stream of the system: the interpreter needs its lock at the end."""
        if stream is None:  # pythonw, or a daemon without standard streams
            return Response(0, b"there is no standard stream to print to")
        try:
            if _is_of_the_system(stream):
                file = stream.fileno()
                if wait_writable(file, time.monotonic() + timeout):
                    stream.flush()  # the application's own output comes first
                self._lines.write(file, lines, timeout)
            else:
                _write_text(stream, b"".join(lines))
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            return failed("standard stream", error)
        return DELIVERED


def failed(where: str, error: Exception) -> Response:
    """Return the response for a write that failed."""
    return Response(0, f"cannot write to {where}: {error}".encode())


def _chunk(lines: Sequence[bytes], start: int) -> Sequence[bytes]:
    """Return the next lines that fit into a chunk together, at least one."""
    size, end = len(lines[start]), start + 1
    while end < len(lines) and (size := size + len(lines[end])) <= CHUNK:
        end += 1
    return lines[start:end]


def _is_of_the_system(stream: TextIO) -> bool:
    """Return True for a standard stream as Python makes it; False for a stand-in, such as a notebook's or a test's."""
    return type(stream) is io.TextIOWrapper and type(stream.buffer) in (io.BufferedWriter, io.FileIO)


def _write_text(stream: TextIO, text: bytes) -> None:
    buffer = getattr(stream, "buffer", None)
    if buffer is None:
        stream.write(text.decode())
    else:
        stream.flush()
        buffer.write(text)
    stream.flush()
