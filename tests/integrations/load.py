"""Load on a real web server: keep-alive connections, requests of many users, and the events that must arrive."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
USERS = 50
PATIENCE = 60.0
"""Seconds that a client waits for an answer. Django runs its sync views under ASGI one after the other: the last of 200
requests at once was answered after 12 seconds, beside three other tests.
"""


class Request(NamedTuple):
    """A request to an application under test: `/work/<number>`, by a user (header `X-User`), or by nobody.

    The application answers 200 and tracks one feature with the property `number`. The user's account is
    `account-<user>`, the user's property `plan` is `plan-<user>`.
    """

    number: int
    user: str | None
    path: str = "/work/{number}"
    body: bytes = b""

    def send(self, connection: http.client.HTTPConnection) -> int:
        """Return the answer's status; the answer is read to its end."""
        headers = {} if self.user is None else {"X-User": self.user}
        method = "POST" if self.body else "GET"
        connection.request(method, self.path.format(number=self.number), body=self.body or None, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def requests_of_users(count: int, first: int = 0, path: str = "/work/{number}") -> list[Request]:
    """Return `count` requests of 50 users in turn; every fifth request is anonymous."""
    return [
        Request(number, None if number % 5 == 0 else f"user-{number % USERS}", path)
        for number in range(first, first + count)
    ]


def drive(port: int, requests: Iterable[Request], connections: int = 20) -> list[Request]:
    """Send requests over keep-alive connections, one thread each; return the requests that were answered with 200.

    A thread ends with the requests, or with the server: when a connection is refused.
    """
    answered: list[Request] = []
    waiting, lock = iter(requests), threading.Lock()

    def send_all() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while True:
            with lock:
                request = next(waiting, None)
            if request is None:
                break
            try:
                if request.send(connection) == 200:
                    answered.append(request)
            except ConnectionRefusedError:
                break
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens a new connection
        connection.close()

    threads = [threading.Thread(target=send_all) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered


def endless_requests() -> Iterator[Request]:
    """Return requests without end."""
    return chain.from_iterable(requests_of_users(1_000, first) for first in range(0, 10**9, 1_000))


def problems(
    answered: Sequence[Request], items: Sequence[Mapping[str, Any]], runs: Mapping[int, int] | None = None
) -> list[str]:
    """Compare the events that arrived with the requests that were answered; return the differences.

    An event of a request that was not answered is no difference: the server may have ended in between.

    Args:
        answered: The requests.
        items: The events.
        runs: How often each request was worked on, by its number; default: once.
    """
    users = {request.number: request.user for request in answered}
    seen: dict[int, list[tuple[Any, ...]]] = {}
    for item in items:
        who = (item["user_id"], item["context"].get("group_id"), item["properties"].get("plan"))
        seen.setdefault(int(item["properties"]["number"]), []).append(who)
    found = []
    for number, user in users.items():
        events = seen.get(number, [])
        times = 1 if runs is None else runs[number]
        expected = [] if user is None else [(user, f"account-{user}", f"plan-{user}")] * times
        if events != expected:
            found.append(f"request {number} of {user}: events of {events}")
    return found


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(arguments: Sequence[str], port: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m <arguments>` as a server, and wait until its port is open; terminate it at the end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, env={**kept, "PYTHONPATH": path, **environment}
    )

    def open_or_ended() -> bool:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(open_or_ended, f"{arguments} listens on {port}", 60)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
