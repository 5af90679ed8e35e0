"""Fixtures of all tests: a clean library, the real inspector, and servers with deliberate faults."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest

import ts_autotrack
from ts_autotrack._core import diagnostics, observers
from ts_autotrack._core.client import client
from ts_autotrack._core.identity.scope import Scope, _current
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

DEADLINE = 10.0


def terminate(process: subprocess.Popen[Any], patience: float = 60.0) -> None:
    """End a process by SIGTERM; kill it, and fail, if it needs longer than `patience` seconds."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Return the condition's first true value; fail after `deadline` seconds with the name of the condition."""
    end = time.monotonic() + deadline
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"not within {deadline} s: {what}")
        threading.Event().wait(0.005)
    return value


class Inspector:
    """The real inspector in its own process; a test sees only events since the test began."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.endpoint = f"{url}/api"
        self._after = self._read = 0
        self._client = httpx.Client(timeout=60)  # five seconds were too few on a busy machine

    def get(self, **query: str | int) -> list[dict[str, Any]]:
        """Return the answer to GET /events."""
        answer = self._client.get(f"{self.url}/events", params={"after": self._after, **query})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["events"])

    def items(self, **query: str | int) -> list[dict[str, Any]]:
        """Return all arrived items, page by page."""
        items: list[dict[str, Any]] = []
        after = self._after
        while events := self.get(**{"after": after, **query}):
            items += [event["item"] for event in events]
            after = events[-1]["id"]
        self._read = max(self._read, after)
        return items

    def forget(self) -> None:
        """Begin a new test: hide all events so far."""
        self._after = self._read  # a test of 100,000 events has read them all
        while events := self.get():
            self._after = events[-1]["id"]

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def pytest_collection_finish() -> None:
    """Freeze what the collected modules have imported: each later garbage collection would spend 0.3 s on it."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the plugins, which may look for references now, find them."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def inspector_process() -> Iterator[Inspector]:
    """`ts-autotrack inspect`, started once."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.stdout.readline()
        inspector = Inspector(line.split()[3])
        yield inspector
        inspector.close()
        process.terminate()


@pytest.fixture
def inspector(inspector_process: Inspector) -> Inspector:
    """An empty inspector, and the library configured with the inspector's endpoint."""
    inspector_process.forget()
    ts_autotrack.configure(endpoint=inspector_process.endpoint, api_key="test", flush_interval=0.05)
    return inspector_process


class Answer(NamedTuple):
    """Answer of a scripted server to a request."""

    status: int = 200
    body: bytes = b'{"success": true}'
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    wait: threading.Event | None = None


class Request(NamedTuple):
    """Request received by a scripted server."""

    path: str
    headers: dict[str, str]
    items: list[dict[str, Any]]
    size: int
    at: float


class ScriptedServer:
    """A real HTTP server: gives the scripted answers in order, then accepts everything.

    Attributes:
        inspector: True if all answers say that the server is an inspector. It then takes reports of processes.
        reports: The reports so far.
        asked: Paths of the GET requests so far.
        hold: Event that the answers to reports wait for.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.inspector = False
        self.reports: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.hold: threading.Event | None = None
        self.script: deque[Answer | Callable[[Request], Answer]] = deque()
        self.always: Callable[[Request], Answer] | None = None
        self.requests: list[Request] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.answer(server.answer_to(self.path, headers, body))

            def do_GET(self) -> None:
                server.asked.append(self.path)
                self.answer(Answer(404, b"{}"))

            def answer(self, answer: Answer) -> None:
                if answer.wait is not None:
                    answer.wait.wait(DEADLINE)
                self.send_response(answer.status)
                for name, value in server.headers_of(answer).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore disconnecting clients: they are part of the tests."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def answer_to(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Keep a request, or a report, and return the answer."""
        if self.inspector and path.endswith("/reports"):
            self.reports.append(json.loads(body))
            return Answer(wait=self.hold)
        request = Request(path, headers, self.decode(headers, body), len(body), time.monotonic())
        self.requests.append(request)
        step = self.script.popleft() if self.script else self.always
        return step(request) if callable(step) else step or Answer()

    def headers_of(self, answer: Answer) -> dict[str, str]:
        """Return the headers to send with an answer."""
        own = {"X-TS-Autotrack-Inspector": "1"} if self.inspector else {}
        return {"content-length": str(len(answer.body)), **own, **answer.headers}

    def decode(self, headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
        """Return the items of a request; other protocols have their own way."""
        del headers
        items: list[dict[str, Any]] = json.loads(body)
        return items

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items of all requests, in order."""
        return [item for request in self.requests for item in request.items]

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server, and the library configured with its endpoint."""
    scripted = ScriptedServer()
    ts_autotrack.configure(endpoint=scripted.endpoint, api_key="test", flush_interval=0.05)
    yield scripted
    ts_autotrack.shutdown(0.5)
    scripted.close()


@pytest.fixture
def dead_endpoint() -> Iterator[str]:
    """An endpoint without a listener, on a port that nobody else takes meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(autouse=True)
def clean_library(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Restore the library's global state and the environment; a fault behind the barrier fails the test."""
    for name in list(os.environ):
        if name.startswith(("TS_AUTOTRACK_", "THRIVESTACK_")) or name == "DO_NOT_TRACK":
            monkeypatch.delenv(name)
    monkeypatch.setenv("TS_AUTOTRACK_IN_TESTS", "1")  # some tests use endpoints on other machines
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
    monkeypatch.setattr(diagnostics, "reraise", True)
    monkeypatch.setattr(observers, "observers", ())
    logging.root.setLevel(logging.WARNING)  # Celery's workers and Litestar's applications set the level
    warn_once.cache_clear()
    scope = _current.set(Scope())
    yield
    _current.reset(scope)
    ts_autotrack.shutdown(1)
    client.forget_arguments()
    client.pacing = None
    diagnostics.set_debug(on=False)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    client.reset()


WAIT_FOR_REST = """
def wait_for_rest():
    # A thread at work during a fork in C leaves Python, or a C library, locked in the child.
    import os, sys, threading, time
    def places():
        frames = sys._current_frames()
        del frames[threading.get_ident()]
        return {thread: (frame.f_code, frame.f_lasti) for thread, frame in frames.items()}
    def is_sleeping(task):
        with open(f"/proc/self/task/{task}/stat") as file: return file.read().rpartition(")")[2].split()[0] == "S"
    while True:
        before = places()
        time.sleep(0.1)
        others = set(os.listdir("/proc/self/task")) - {str(threading.get_native_id())}
        if places() == before and all(map(is_sleeping, others)): return
"""
"""Part of a program that forks in C: waits until all other threads are at rest."""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, with `environment` and no other variables of the library."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**kept, "TS_AUTOTRACK_IN_TESTS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
