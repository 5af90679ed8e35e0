"""The Django middleware under real servers: concurrent users, keep-alive connections, SIGTERM."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import DEADLINE, wait_until
from tests.integrations.load import (
    ROOT,
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

APP = "tests.integrations.apps.django_app"
GUNICORN = ("gunicorn", f"{APP}:wsgi", "--log-level", "error", "--bind", "127.0.0.1:{port}")
UVICORN = ("uvicorn", f"{APP}:asgi", "--log-level", "error", "--lifespan", "off", "--port", "{port}")
SERVERS = {
    "gunicorn, sync": (*GUNICORN, "--workers", "2"),
    "gunicorn, gthread": (*GUNICORN, "--worker-class", "gthread", "--threads", "8"),
    "uvicorn, asyncio": (*UVICORN, "--loop", "asyncio"),
    "uvicorn, uvloop": (*UVICORN, "--loop", "uvloop"),
}
VIEWS = ("/served/{number}", "/async/{number}", "/api/{number}", "/once-sync/{number}", "/once/{number}")

both_callables = pytest.mark.parametrize("user", ["sync", "async"])
"""The project's callable that names the user is a function, or a coroutine function."""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of the project's database: 50 users, signed in."""
    path = str(tmp_path_factory.mktemp("django") / "app.db")
    environment = {**os.environ, "DJANGO_APP_DATABASE": path, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", APP], cwd=ROOT, env=environment, check=True, timeout=120)
    return path


def serving(server: str, port: int, inspector: Inspector, **environment: str) -> AbstractContextManager[Popen[bytes]]:
    """Run a server with the application, which sends to the inspector."""
    arguments = [argument.format(port=port) for argument in SERVERS[server]]
    settings = {"THRIVESTACK_ENDPOINT": inspector.endpoint, "THRIVESTACK_API_KEY": "test", **environment}
    return running(arguments, port, PYTHONWARNINGS="ignore:StreamingHttpResponse", **settings)


@both_callables
@pytest.mark.parametrize("server", SERVERS)
def test_200_concurrent_requests_of_50_users(inspector: Inspector, database: str, server: str, user: str) -> None:
    """Every event has its own request's user, account and property; requests of nobody have no event."""
    port = free_port()
    requests = [
        request
        for rounds, path in enumerate(VIEWS)
        for request in requests_of_users(200, first=200 * rounds, path=path)
    ]
    with serving(server, port, inspector, DJANGO_APP_DATABASE=database, DJANGO_APP_USER=user):
        answered = drive(port, requests, connections=200)
    assert len(answered) == len(requests)
    assert problems(answered, inspector.items()) == []
    assert len(inspector.items()) == sum(request.user is not None for request in requests)


@pytest.mark.parametrize("server", SERVERS)
def test_signed_in_and_anonymous_requests_of_one_connection(inspector: Inspector, database: str, server: str) -> None:
    """The requests of a keep-alive connection have their own user, or none; large bodies make no difference."""
    users = ["user-1", None, "user-2", None, None, "user-1", None, "user-3"]
    kinds = [(path, size) for path in VIEWS if "api" not in path for size in (0, 300_000)]
    requests = [
        Request(index * len(users) + number, user, path, b"x" * size)
        for index, (path, size) in enumerate(kinds)
        for number, user in enumerate(users)
    ]
    port = free_port()
    with serving(server, port, inspector, DJANGO_APP_DATABASE=database, DJANGO_APP_USER="sync"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        assert [request.send(connection) for request in requests] == [200] * len(requests)
        connection.close()
    assert problems(requests, inspector.items()) == []


@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_under_load_loses_nothing(inspector: Inspector, database: str, server: str) -> None:
    """Every answered request of a signed-in user has its event when the server has ended."""
    port, answered = free_port(), []
    enough = threading.Event()

    def counted() -> Iterator[Request]:
        for request in endless_requests():
            if request.number == 500:
                enough.set()
            yield request._replace(path=VIEWS[request.number // 10 % len(VIEWS)])

    with serving(server, port, inspector, DJANGO_APP_DATABASE=database, DJANGO_APP_USER="sync") as process:
        client = threading.Thread(target=lambda: answered.extend(drive(port, counted())))
        client.start()
        assert enough.wait(60)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, "the server ends", 60)
        client.join(60)
    assert len(answered) >= 400
    assert problems(answered, inspector.items()) == []
