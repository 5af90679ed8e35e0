"""Flask under real servers: users are never mixed up, and a deploy loses nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.integrations.load import Request, drive, endless_requests, free_port, problems, requests_of_users, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

APP = "tests.integrations.apps.flask_app"
SERVERS = ["gunicorn sync", "gunicorn gthread", "waitress"]


def command(server: str, port: int) -> list[str]:
    """Return the arguments of `python -m` that serve the application."""
    if server == "waitress":
        return [APP, str(port)]
    kind = server.split()[1]
    threads = ["--threads", "8"] if kind == "gthread" else []
    return ["gunicorn", "-k", kind, *threads, "-w", "2", "-b", f"127.0.0.1:{port}", f"{APP}:app"]


@pytest.mark.parametrize("server", SERVERS)
def test_no_event_has_another_user(inspector: Inspector, server: str) -> None:
    """400 requests of 50 users and of nobody, over 20 keep-alive connections: each event has its own user."""
    port = free_port()
    requests = requests_of_users(200) + requests_of_users(200, 200, "/stream/{number}")
    with running(command(server, port), port, THRIVESTACK_ENDPOINT=inspector.endpoint):
        answered = drive(port, requests)
    assert len(answered) == len(requests)
    items = inspector.items()
    assert problems(answered, items) == []
    assert len(items) == sum(request.user is not None for request in requests)


@pytest.mark.parametrize("server", SERVERS)
def test_sigterm_under_load_loses_nothing(inspector: Inspector, server: str) -> None:
    """Every request that was answered has its event, up to the last before the server's end."""
    port = free_port()
    answered: list[Request] = []
    sent = 0

    def requests() -> Iterator[Request]:
        nonlocal sent
        for request in endless_requests():
            sent += 1
            yield request

    with running(command(server, port), port, THRIVESTACK_ENDPOINT=inspector.endpoint) as process:
        load = threading.Thread(target=lambda: answered.extend(drive(port, requests())))
        load.start()
        wait_until(lambda: sent > 300, "300 requests sent")
        process.terminate()
        process.wait(30)
        load.join(30)
    assert len(answered) > 200
    assert problems(answered, inspector.items()) == []
