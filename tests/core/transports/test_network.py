"""Requests that hang: one deadline for all of a request, and an end by configure() and shutdown()."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from opentelemetry import context

from tests.conftest import Answer, ScriptedServer, wait_until
from ts_autotrack import configure, flush, shutdown, stats, track
from ts_autotrack._core.client import client
from ts_autotrack._core.config import ServerSettings
from ts_autotrack._core.transports.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"


def one_byte_at_a_time(connection: socket.socket, closing: threading.Event) -> None:
    """Send the head slowly, without end."""
    for byte in HEAD[:-2] + b"x-filler: " + b"x" * 1_000_000:
        connection.send(bytes([byte]))
        if closing.wait(0.02):
            return


def endless_continue(connection: socket.socket, closing: threading.Event) -> None:
    """Send `100 Continue` without end."""
    while not closing.wait(0.02):
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")


def slow_body(connection: socket.socket, closing: threading.Event) -> None:
    """Send the head, then a slow body without end."""
    connection.send(HEAD)
    while not closing.wait(0.02):
        connection.send(b"x")


def silence(connection: socket.socket, closing: threading.Event) -> None:
    """Take everything and send nothing."""
    while not closing.is_set() and connection.recv(65_536):
        pass


def takes_nothing(_: socket.socket, closing: threading.Event) -> None:
    """Read nothing."""
    closing.wait(60)


class SlowServer:
    """A server that misbehaves on every connection."""

    def __init__(self, behave: Callable[[socket.socket, threading.Event], None]) -> None:
        self.connections = 0
        self._behave = behave
        self._closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._behave(connection, self._closing)

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    """A server with the behaviour given as parameter."""
    server = SlowServer(request.param)
    yield server
    server.close()


def settings(endpoint: str) -> ServerSettings:
    """Return settings for an endpoint."""
    return ServerSettings({"api_key": "k", "auth_token": None, "endpoint": endpoint, "request_timeout": 10.0})


@pytest.mark.parametrize(
    ("slow", "size", "status"),
    [
        (one_byte_at_a_time, 9, 0),
        (endless_continue, 9, 0),
        (slow_body, 9, 200),
        (silence, 9, 0),
        (takes_nothing, 20_000_000, 0),
    ],
    indirect=["slow"],
)
def test_request_has_one_deadline(slow: SlowServer, size: int, status: int) -> None:
    """A request ends with its timeout, however slowly the server reads, or sends the head or the body."""
    transport = HttpTransport(settings(slow.endpoint))
    began = time.monotonic()
    response = transport.send("/track", [b'"%b"' % (b"x" * size)], 0.5)
    took = time.monotonic() - began
    transport.close()
    assert response.status == status
    assert 0.4 < took < 3
    if not status:
        assert b"Timeout" in response.body


@pytest.mark.parametrize("slow", [silence], indirect=True)
def test_configure_ends_a_hanging_request(slow: SlowServer, server: ScriptedServer) -> None:
    """Another endpoint applies at once, even while a request to the previous one hangs."""
    configure(endpoint=slow.endpoint, request_timeout=60)
    track("e", user_id="u")
    wait_until(lambda: slow.connections, "the request")
    configure(endpoint=server.endpoint)
    assert flush(10)
    assert stats().delivered == 1


@pytest.mark.parametrize("slow", [silence], indirect=True)
def test_shutdown_ends_a_hanging_request(slow: SlowServer, server: ScriptedServer) -> None:
    """A request that hangs ends with the time of `shutdown`; a later `configure` delivers the event."""
    configure(endpoint=slow.endpoint, request_timeout=60)
    track("e", user_id="u")
    wait_until(lambda: slow.connections, "the request")
    assert not shutdown(0.2)
    configure(endpoint=server.endpoint)
    assert flush(10)
    assert len(server.items) == 1


def test_no_request_begins_after_the_time_of_shutdown(server: ScriptedServer) -> None:
    """After `shutdown(timeout)` is over, not even the export in progress sends another batch."""
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    for _ in range(30):
        track("e", {"text": "x" * 400_000}, user_id="u")
    wait_until(lambda: server.requests, "the first request")
    shutdown(0.2)
    sent = len(server.requests)
    gate.set()
    worker = client.worker
    assert worker is not None
    wait_until(lambda: worker.ended, "the end of the worker")
    assert len(server.requests) == sent


def test_the_sending_thread_stays_instrumented(server: ScriptedServer) -> None:
    """Where no thread can be started, the application's own thread sends, and its later requests are traced."""
    before = dict(context.get_current())
    transport = HttpTransport(settings(server.endpoint))
    assert transport.send("/track", [b"{}"], 5).status == 200
    transport.close()
    assert dict(context.get_current()) == before
