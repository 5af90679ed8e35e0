"""Standard streams as destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack.typing import Response

if TYPE_CHECKING:
    from typing import TextIO

DELIVERED = Response(200)


def write_to(stream: TextIO | None, text: str) -> Response:
    """Write a text to a standard stream."""
    if stream is None:  # pythonw, or a daemon without standard streams
        return Response(0, b"there is no standard stream to print to")
    try:
        buffer = getattr(stream, "buffer", None)
        if buffer is None:
            stream.write(text)
        else:  # as UTF-8, whatever the stream's encoding is: a terminal in ASCII must not stop the queue
            stream.flush()
            buffer.write(text.encode("utf-8", "backslashreplace"))
        stream.flush()
    except (OSError, ValueError) as error:  # ValueError: the stream is closed
        return failed("standard stream", error)
    return DELIVERED


def failed(where: str, error: Exception) -> Response:
    """Return the response for a write that failed."""
    return Response(0, f"cannot write to {where}: {error}".encode())
