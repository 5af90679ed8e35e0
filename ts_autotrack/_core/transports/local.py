"""Exporters that stay on the machine: the console for a developer's eyes, JSON lines for other programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from ts_autotrack._core.delivery.exporter import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

_DELIVERED = Response(200)


class ConsoleTransport:
    """Prints one line for each event to standard error."""

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Print the items."""
        del timeout
        return _print(sys.stderr, "".join(f"{line(path, json.loads(body))}\n" for body in bodies))

    def close(self) -> None:
        """Nothing is held."""


class JsonLinesTransport:
    """Appends each item to a file, or standard output for "-", as `{"path": "/track", "item": {...}}`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._torn = False

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Append the items."""
        del timeout
        text = b"".join(b'{"path":"%b","item":%b}\n' % (path.encode(), body) for body in bodies)
        if self._path == "-":
            return _print(sys.stdout, text.decode())
        try:
            self._append(b"\n" + text if self._torn else text)
        except OSError as error:
            return _failed(self._path, error)
        return _DELIVERED

    def close(self) -> None:
        """Nothing is held: the file is open only for a write, so it may be rotated at any time."""

    def _append(self, text: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            while text:
                self._torn = True  # a disk that fills up leaves half a line, which the next attempt must end
                text = text[os.write(file, text) :]
            self._torn = False
        finally:
            os.close(file)


def _print(stream: TextIO | None, text: str) -> Response:
    if stream is None:  # pythonw, or a daemon without standard streams
        return Response(0, b"there is no standard stream to print to")
    try:
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(text)
        else:  # in UTF-8, whatever the stream's own encoding is: a terminal in ASCII must not stop the queue
            stream.flush()
            buffer.write(text.encode("utf-8", "backslashreplace"))
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream is closed
        return _failed("standard stream", error)
    return _DELIVERED


def _failed(where: str, error: Exception) -> Response:
    return Response(0, f"cannot write to {where}: {error}".encode())


def line(path: str, item: dict[str, Any]) -> str:
    """Return an item as one line for a person."""
    context = item.get("context", {})
    what = item.get("event_name") or path.removeprefix("/")
    who = f"user={item.get('user_id')} group={context.get('group_id')}"
    details = item.get("properties", item.get("traits", {}))
    return f"[ts_autotrack] {item.get('timestamp')} {what} {who} {json.dumps(details, ensure_ascii=False)}"
