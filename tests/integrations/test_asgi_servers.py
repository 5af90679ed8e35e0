"""The ASGI middleware under real servers: concurrent users, keep-alive connections, large bodies, SIGTERM."""

from __future__ import annotations

import http.client
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import DEADLINE, wait_until
from tests.integrations.load import (
    Request,
    drive,
    endless_requests,
    free_port,
    problems,
    requests_of_users,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from subprocess import Popen

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

APP = "tests.integrations.apps.fastapi_app:app"
UVICORN = ("uvicorn", APP, "--log-level", "error", "--port")
SERVERS = {
    "uvicorn, asyncio": (*UVICORN, "{port}", "--loop", "asyncio"),
    "uvicorn, uvloop": (*UVICORN, "{port}", "--loop", "uvloop"),
    "uvicorn, 2 workers": (*UVICORN, "{port}", "--workers", "2"),
    "gunicorn": (
        *("gunicorn", APP, "--bind", "127.0.0.1:{port}", "--workers", "2", "--log-level", "error"),
        *("--worker-class", "uvicorn.workers.UvicornWorker"),
    ),
}


def serving(server: str, port: int, inspector: Inspector) -> AbstractContextManager[Popen[bytes]]:
    """Run a server with the application, which sends to the inspector."""
    arguments = [argument.format(port=port) for argument in SERVERS[server]]
    return running(arguments, port, THRIVESTACK_ENDPOINT=inspector.endpoint, THRIVESTACK_API_KEY="test")


@pytest.mark.parametrize("server", SERVERS)
def test_200_concurrent_requests_of_50_users(inspector: Inspector, server: str) -> None:
    """Every event has its own request's user, account and property; requests of nobody have no event."""
    port = free_port()
    paths = ("/work/{number}", "/bound/async/{number}", "/bound/sync/{number}")
    requests = [
        request
        for rounds, path in enumerate(paths * 2)
        for request in requests_of_users(200, first=200 * rounds, path=path)
    ]
    with serving(server, port, inspector):
        answered = drive(port, requests, connections=200)
    assert len(answered) == len(requests)
    assert problems(answered, inspector.items()) == []
    assert len(inspector.items()) == sum(request.user is not None for request in requests)


@pytest.mark.parametrize("server", ["uvicorn, asyncio", "uvicorn, uvloop", "gunicorn"])
@pytest.mark.parametrize("size", [10, 300_000])
def test_signed_in_and_anonymous_requests_of_one_connection(inspector: Inspector, server: str, size: int) -> None:
    """After a request with a large body uvicorn starts the connection's next requests in the first one's context; their
    events still have their own user, or none.
    """
    users = ["alice", None, "bob", None, None, "alice", None, "carol"]
    paths = ("/work/{number}", "/bound/async/{number}", "/bound/sync/{number}")
    requests = [Request(number, user, paths[0], b"x" * size) for number, user in enumerate(users)]
    requests += [Request(len(users) + number, user, path) for number, (user, path) in enumerate(zip(users, paths * 3))]  # noqa: B905 - as many as users
    port = free_port()
    with serving(server, port, inspector):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        assert [request.send(connection) for request in requests] == [200] * len(requests)
        connection.close()
    assert problems(requests, inspector.items()) == []


@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_under_load_loses_nothing(inspector: Inspector, server: str) -> None:
    """Every answered request of a signed-in user has its event when the server has ended."""
    port, answered = free_port(), []
    enough = threading.Event()

    def counted() -> Iterator[Request]:
        for request in endless_requests():
            if request.number == 500:
                enough.set()
            yield request

    with serving(server, port, inspector) as process:
        client = threading.Thread(target=lambda: answered.extend(drive(port, counted())))
        client.start()
        assert enough.wait(60)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, "the server ends", 60)
        client.join(60)
    assert len(answered) >= 400
    assert problems(answered, inspector.items()) == []
