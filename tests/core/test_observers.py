"""Observers of requests: values, order, and observers that fail."""

from __future__ import annotations

import threading
import time

import pytest

from tests.conftest import Answer, Request, ScriptedServer, run_python, wait_until
from tests.core.conftest import account_closes
from ts_autotrack import configure, flush, observe_requests, shutdown, stats, track
from ts_autotrack._core import observers
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack.typing import FinishedRequest, Response, Stats

pytestmark = pytest.mark.usefixtures("acting")


@pytest.fixture
def seen() -> list[FinishedRequest]:
    """The requests that an observer saw."""
    requests: list[FinishedRequest] = []
    observe_requests(requests.append)
    return requests


def reset(_: Request) -> Answer:
    """Close the connection without an answer."""
    raise ConnectionResetError


def test_each_request_is_reported_once(server: ScriptedServer, seen: list[FinishedRequest]) -> None:
    """An observer sees path, size, duration, outcome, status and kind of failure of each request, in order."""
    client.pacing = Pacing(first_backoff=0.01)
    gate = threading.Event()
    server.script.extend([Answer(503), reset, Answer(200, wait=gate)])
    for _ in range(3):
        track("e")
    assert not flush(0.3)
    gate.set()
    assert flush(10)
    assert [request[:2] + request[3:6] for request in seen] == [
        ("/track", seen[0].events, "kept", 0, 503),
        ("/track", seen[1].events, "kept", 0, 0),
        ("/track", seen[2].events, "delivered", 0, 200),
        *[("/track", request.events, "delivered", 0, 200) for request in seen[3:]],
    ]
    assert [request.error for request in seen[:3]] == ["503", "RemoteProtocolError", None]
    assert sum(request.events for request in seen if request.outcome == "delivered") == 3
    assert 0.1 < seen[2].seconds < 10


def test_refused_events_are_reported(server: ScriptedServer, seen: list[FinishedRequest]) -> None:
    """The halves of a refused batch are kept until the faulty event stands alone, which is rejected."""
    server.always = lambda request: Answer(400 if "poison" in str(request.items) else 200)
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("e")
    wait_until(lambda: server.requests, "the first request")
    track("e", {"poison": 1})
    track("e")
    gate.set()
    assert flush(10)
    assert [(request.events, request.outcome, request.rejected, request.error) for request in seen] == [
        (1, "delivered", 0, None),
        (2, "kept", 0, "400"),
        (1, "rejected", 1, "400"),
        (1, "delivered", 0, None),
    ]
    assert account_closes() == Stats(3, 2, 0, 1, {})


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Response(200, b'{"success": false}'), "200"),
        (Response(0, b"ConnectTimeout: the request took too long"), "ConnectTimeout"),
        (Response(0, b"HTTPS_PROXY=socks://x cannot be used: no"), "_OTHER"),
        (Response(0, b"the request was ended by shutdown(), configure() or a captured test"), "_OTHER"),
        (Response(200, b"quota", rejected=2), "rejected"),
        (Response(204), None),
    ],
)
def test_kinds_of_failure_are_few(response: Response, error: str | None) -> None:
    """The kind of a failure is a status, the name of an exception or one of two words: good for a metric's label."""
    from ts_autotrack._core.delivery.answers import error_type  # noqa: PLC0415 - not with the package

    assert error_type(response) == error


def test_observer_that_raises_harms_nobody(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """An observer that raises is logged once; delivery and the other observers go on."""
    seen: list[FinishedRequest] = []

    def broken(request: FinishedRequest) -> None:
        raise ZeroDivisionError(request.path)

    observe_requests(broken)
    observe_requests(seen.append)
    for _ in range(3):
        track("e")
        assert flush(10)
    assert len(server.requests) == len(seen) == 3
    wait_until(lambda: "an observer of requests raised ZeroDivisionError" in caplog.text, "the report")
    assert caplog.text.count("an observer of requests") == 1


def test_slow_observer_is_named(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observer that holds the delivery is logged, and events arrive all the same."""
    monkeypatch.setattr(observers, "SLOW", 0.05)
    observe_requests(lambda _: threading.Event().wait(0.1))
    track("e")
    assert flush(10)
    wait_until(lambda: "an observer of requests took 0.1 s" in caplog.text, "the report")
    assert len(server.items) == 1


def test_blocked_observer_holds_no_caller(server: ScriptedServer) -> None:
    """While an observer blocks, calls go on, and `shutdown` ends in time."""
    gate = threading.Event()
    observe_requests(lambda _: gate.wait(30))
    track("e")
    wait_until(lambda: server.requests, "the request")
    began = time.monotonic()
    track("e")
    assert not shutdown(0.2)
    assert time.monotonic() - began < 5
    gate.set()
    configure(endpoint=server.endpoint)
    assert flush(10)
    assert len(server.items) == 2


def test_observation_ends(server: ScriptedServer, seen: list[FinishedRequest]) -> None:
    """The returned function ends one registration, also of two of the same observer; ending twice does no harm."""
    more: list[FinishedRequest] = []
    stops = [observe_requests(more.append) for _ in range(2)]
    track("e")
    assert flush(10)
    stops[0]()
    stops[0]()
    track("e")
    assert flush(10)
    assert len(server.requests) == len(seen) == 2
    assert len(more) == 3


def test_observer_must_be_callable() -> None:
    """Something else is refused at the call."""
    with pytest.raises(TypeError, match="expected a callable"):
        observe_requests("statsd")  # type: ignore[arg-type]


def test_events_of_an_observer_are_suppressed(server: ScriptedServer) -> None:
    """An observer that tracks events makes no endless loop: its events are dropped as "suppressed"."""
    observe_requests(lambda _: track("request_sent", user_id="u"))
    track("e")
    assert flush(10)
    assert len(server.items) == 1
    assert stats().dropped == {"suppressed": 1}


def test_children_keep_the_observers(server: ScriptedServer) -> None:
    """A forked child's requests are reported in the child, as preforking servers need."""
    code = """
import os
import ts_autotrack
ts_autotrack.observe_requests(lambda request: print(os.getpid() == parent, request.events, flush=True))
parent = os.getpid()
ts_autotrack.track("e", user_id="u"); ts_autotrack.flush(10)
if not (child := os.fork()):
    ts_autotrack.track("e", user_id="u"); ts_autotrack.flush(10)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=server.endpoint)
    assert done.stdout == "True 1\nFalse 1\n", done.stderr


def test_queue_is_part_of_the_account(server: ScriptedServer) -> None:
    """`stats` tells the size of the request in progress, and the number of events that may wait."""
    configure(max_queue=77)
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("e")
    wait_until(lambda: server.requests, "the request")
    account = stats()
    assert (account.pending, account.in_flight, account.capacity) == (1, 1, 77)
    gate.set()
    assert flush(10)
    wait_until(lambda: stats().in_flight == 0, "the end of the request")
