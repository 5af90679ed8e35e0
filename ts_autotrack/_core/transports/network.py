"""Connections of the HTTP client with one deadline for all of a request, and an end from another thread.

The HTTP client's own timeouts apply to each read and write: a server that sends a byte now and then, or `100 Continue`
again and again, holds a request for good.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to one address, within the request's deadline."""


CANCELLED = "the request was ended by shutdown(), configure() or a captured test"


class Backend(httpcore.NetworkBackend):
    """Opens connections for one request at a time.

    Attributes:
        deadline: Monotonic time at which the request in progress ends.
        cancelled: True if the request in progress was ended from another thread.
        lock: Lock on closing a connection: another thread must not shut down a file descriptor that was used again.
    """

    def __init__(self) -> None:
        self.deadline = 0.0
        self.lock = threading.Lock()
        self._inner = httpcore.SyncBackend()
        self._stream: Stream | None = None
        self.cancelled = False

    def begin(self, timeout: float) -> None:
        """Begin a request of `timeout` seconds."""
        self.deadline, self.cancelled = time.monotonic() + timeout, False

    def cancel(self) -> None:
        """End the request in progress, from any thread."""
        with self.lock:
            self.cancelled = True
            if self._stream is not None:
                self._stream.shut_down()

    def use(self, stream: Stream) -> None:
        """Note the connection that the request uses."""
        self._stream = stream

    def forget(self, stream: Stream) -> None:
        """Note that a connection was closed."""
        if self._stream is stream:
            self._stream = None

    def remaining(self, timeout: float | None, error: type[Exception]) -> float:
        """Return the seconds that a step of the request may take.

        Raises:
            Exception: `error`, if the request is over.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            message = "the request took too long"
            raise error(message)
        if self.cancelled:
            raise httpcore.NetworkError(CANCELLED)
        return left if timeout is None else min(left, timeout)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Try the addresses of a host in turn; each attempt ends with the deadline of the request."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in dict.fromkeys(str(entry[4][0]) for entry in found):
            seconds = self.remaining(min(timeout or CONNECT_TIMEOUT, CONNECT_TIMEOUT), httpcore.ConnectTimeout)
            try:
                return Stream(self._inner.connect_tcp(address, port, seconds, local_address, socket_options), self)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class Stream(httpcore.NetworkStream):
    """A connection with the deadline of its backend."""

    def __init__(self, inner: httpcore.NetworkStream, backend: Backend) -> None:
        self._inner = inner
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read some bytes."""
        self._backend.use(self)
        return self._inner.read(max_bytes, self._backend.remaining(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all bytes, in pieces: the time limit applies to each piece."""
        self._backend.use(self)
        for start in range(0, len(buffer), PIECE):
            seconds = self._backend.remaining(timeout, httpcore.WriteTimeout)
            self._inner.write(buffer[start : start + PIECE], seconds)

    def close(self) -> None:
        """Close the connection."""
        with self._backend.lock:
            self._backend.forget(self)
            self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Encrypt the connection."""
        self._backend.use(self)
        seconds = self._backend.remaining(timeout, httpcore.ConnectTimeout)
        return Stream(self._inner.start_tls(ssl_context, server_hostname, seconds), self._backend)

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection."""
        return self._inner.get_extra_info(info)

    def shut_down(self) -> None:
        """Make the other thread's read or write end. The method of `SSLSocket` would change its state."""
        connection = self._inner.get_extra_info("socket")
        if isinstance(connection, socket.socket):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)


PIECE = 65_536
"""Bytes of a write. The time limit of the HTTP client applies to each write."""
