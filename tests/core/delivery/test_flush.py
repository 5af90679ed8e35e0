"""flush: its waiting, its timeout, its result."""

from __future__ import annotations

import threading
import time

import pytest

from tests.conftest import DEADLINE, Answer, ScriptedServer, wait_until
from tests.core.conftest import account_closes
from ts_autotrack import configure, flush, shutdown, stats, track, user_context
from ts_autotrack._core.client import client

pytestmark = pytest.mark.usefixtures("acting")


def test_flush_waits_for_what_was_accepted_before(server: ScriptedServer) -> None:
    """Flush returns True when all events are settled, and False at its timeout; `stats` has the number left."""
    assert flush(0)
    track("quick")
    assert flush(float("inf"))
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("slow")
    began = time.monotonic()
    assert not flush(0.2)
    assert not flush(-1)
    assert 0.2 <= time.monotonic() - began < 1.5
    assert stats().pending == 1
    gate.set()
    assert flush(5)
    assert account_closes().delivered == 2


def test_flush_says_what_is_left(dead_endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    """A flush out of time logs the number of waiting events."""
    configure(endpoint=dead_endpoint, api_key="k")
    for _ in range(3):
        track("e")
    assert not flush(0.3)
    assert "flush(0.3): 3 events were not delivered in time; they stay queued" in caplog.text


def test_flush_under_load_waits_for_its_own_events_only(server: ScriptedServer) -> None:
    """New events do not keep a flush from returning; a timed-out flush leaves nothing behind."""
    slow, stop = threading.Event(), threading.Event()
    server.always = lambda _: Answer(wait=slow)

    def load() -> None:
        with user_context("u", group_id="g"):
            while not stop.wait(0.001):
                track("e")

    thread = threading.Thread(target=load)
    thread.start()
    try:
        wait_until(lambda: server.requests, "the first request")
        assert [flush(0.01) for _ in range(20)] == [False] * 20
        threading.Timer(0.2, slow.set).start()
        assert flush(5)
    finally:
        stop.set()
        thread.join()
    assert flush(5)
    assert client.worker is not None
    assert client.worker.waiting_flushes == 0


def test_shutdown_ends_a_flush_that_waits(dead_endpoint: str) -> None:
    """A flush in another thread does not wait for a worker that has ended."""
    configure(endpoint=dead_endpoint, api_key="k")
    track("e")
    returned: list[bool] = []
    thread = threading.Thread(target=lambda: returned.append(flush(30)))
    thread.start()
    wait_until(lambda: client.worker is not None and client.worker.waiting_flushes, "the flush to wait")
    assert not shutdown(0.2)
    thread.join(DEADLINE)
    assert returned == [False]
