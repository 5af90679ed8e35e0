"""gRPC, aiohttp and Strawberry under real servers: users are never mixed up, a deploy loses nothing."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from tests.conftest import wait_until
from tests.integrations.load import Request, drive, endless_requests, free_port, problems, requests_of_users, running

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

WEB = {
    "aiohttp": (
        "gunicorn -k aiohttp.GunicornWebWorker -w 2 -b 127.0.0.1:{port} tests.integrations.apps.aiohttp_app:app",
        ("/work/{number}", "/bound/{number}", "/stream/{number}"),
    ),
    "strawberry": (
        "gunicorn -k uvicorn.workers.UvicornWorker -w 2 -b 127.0.0.1:{port} tests.integrations.apps.strawberry_app:app",
        ("/graphql?query={{work(number:{number})}}", "/graphql?query={{slowWork(number:{number})}}"),
    ),
}
"""Command of the server, and paths of requests."""
GRPC = "tests.integrations.apps.grpc_app"


@pytest.mark.parametrize("framework", WEB)
def test_no_event_has_another_user(inspector: Inspector, framework: str) -> None:
    """Requests of 50 users and of nobody, over 20 keep-alive connections: each event has its own user."""
    command, paths = WEB[framework]
    port = free_port()
    requests = [request for i, path in enumerate(paths) for request in requests_of_users(150, 150 * i, path)]
    with running(command.format(port=port).split(), port, THRIVESTACK_ENDPOINT=inspector.endpoint):
        answered = drive(port, requests)
    assert len(answered) == len(requests)
    items = inspector.items()
    assert problems(answered, items) == []
    assert len(items) == sum(request.user is not None for request in requests)
    assert len({item["context"]["event_id"] for item in items}) == len(items)


def counted(requests: Iterable[Request], path: str | None, sent: list[Request]) -> Iterator[Request]:
    """Return requests with another path, and keep each in `sent`."""
    for request in requests:
        sent.append(request)
        yield request if path is None else request._replace(path=path)


@pytest.mark.parametrize("framework", WEB)
def test_sigterm_under_load_loses_nothing(inspector: Inspector, framework: str) -> None:
    """Every request that was answered has its event, up to the last before the server's end."""
    command, paths = WEB[framework]
    port = free_port()
    answered: list[Request] = []
    sent: list[Request] = []
    with running(command.format(port=port).split(), port, THRIVESTACK_ENDPOINT=inspector.endpoint) as process:
        requests = counted(endless_requests(), paths[0], sent)
        load = threading.Thread(target=lambda: answered.extend(drive(port, requests)))
        load.start()
        wait_until(lambda: len(sent) > 200, "200 requests sent", 60)
        process.terminate()
        process.wait(30)
        load.join(60)
    assert len(answered) > 100
    assert problems(answered, inspector.items()) == []


def drive_grpc(port: int, requests: Iterable[Request], ended: threading.Event) -> list[Request]:
    """Call methods over ten channels, a thread each; return the requests that were answered."""
    answered: list[Request] = []
    waiting, lock = iter(requests), threading.Lock()

    def call(channel: Any, request: Request) -> None:
        metadata = [] if request.user is None else [("x-user", request.user)]
        argument = str(request.number).encode()
        if request.number % 2:
            channel.unary_unary("/test.Work/Work")(argument, metadata=metadata, timeout=30)
        else:
            list(channel.unary_stream("/test.Work/Stream")(argument, metadata=metadata, timeout=30))
        answered.append(request)

    def call_all() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            while not ended.is_set():
                with lock:
                    request = next(waiting, None)
                if request is None:
                    break
                try:
                    call(channel, request)
                except grpc.RpcError:
                    ended.wait(0.01)

    threads = [threading.Thread(target=call_all) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered


def process_of(port: int) -> bytes:
    """Return the id of the process that takes a new connection."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer: bytes = channel.unary_unary("/test.Work/Process")(b"", timeout=30, wait_for_ready=True)
        return answer


@pytest.mark.parametrize("kind", ["threads", "aio"])
def test_grpc_under_load(inspector: Inspector, kind: str) -> None:
    """Two processes, 50 users, SIGTERM under load: each answered RPC has an event of its own user."""
    port = free_port()
    answered: list[Request] = []
    sent: list[Request] = []
    ended = threading.Event()
    with ExitStack() as stack:
        processes = [
            stack.enter_context(running([GRPC, kind, str(port)], port, THRIVESTACK_ENDPOINT=inspector.endpoint))
            for _ in range(2)
        ]
        wait_until(lambda: len({process_of(port) for _ in range(4)}) == 2, "both processes listen", 60)
        requests = counted(endless_requests(), None, sent)
        load = threading.Thread(target=lambda: answered.extend(drive_grpc(port, requests, ended)))
        load.start()
        wait_until(lambda: len(sent) > 600, "600 requests sent", 60)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
        ended.set()
        load.join(60)
    assert len(answered) > 500
    items = inspector.items()
    assert problems(answered, items) == []
    assert len({item["context"]["event_id"] for item in items}) == len(items)
