"""Captures beside a server and other threads: no deadlock, nothing left behind, nothing written."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, run_python, wait_until
from ts_autotrack import bind_user, flush, request_scope, stats, track
from ts_autotrack.testing import Events, capture_events, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.conftest import ScriptedServer


def test_captures_of_several_threads_end_with_deliveries_going_on(server: ScriptedServer) -> None:
    """Two threads open captures while a request is in progress; after both have ended, events are delivered."""
    answer, both = threading.Event(), threading.Barrier(2)
    server.script.append(Answer(wait=answer))
    track("first", user_id="u")
    wait_until(lambda: server.requests, "a request is in progress")

    def work() -> None:
        with capture_events():
            both.wait(30)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer.set()
    track("last", user_id="u")
    assert flush(10)
    assert server.items[-1]["event_name"] == "last"


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Let threads alternate within microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
def test_captures_of_several_threads_share_the_events() -> None:
    """Each event is in one of the open captures, once; no account counts an event that a request has given back."""
    captured: list[Events] = []

    def work(thread: int) -> None:
        for number in range(150):
            with capture_events() as events, request_scope():
                track("e", {"number": number})
                bind_user(f"user_{thread}")
            captured.append(events)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = sorted((str(event.user_id), event.properties["number"]) for events in captured for event in events)
    assert found == [(f"user_{thread}", number) for thread in range(4) for number in range(150)]
    assert (stats().accepted, stats().pending) == (0, 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timer signals")
def test_a_capture_that_is_interrupted_at_its_begin_is_closed(server: ScriptedServer) -> None:
    """A time limit of the test runner may raise while a capture waits for a request: later events are delivered."""

    def expire(*_: object) -> None:
        raise TimeoutError

    answer = threading.Event()
    server.script.append(Answer(wait=answer))
    track("first", user_id="u")
    wait_until(lambda: server.requests, "a request is in progress")
    before = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeoutError), capture_events():
            pytest.fail("the capture has not waited for the request")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    answer.set()
    track("last", user_id="u")
    assert flush(10)
    assert [item["event_name"] for item in server.items] == ["first", "last"]


def test_captured_events_are_written_to_no_file(tmp_path: Path) -> None:
    """A `shutdown` inside, or the end of a child process, writes nothing to the file of JSONL_PATH."""
    path = tmp_path / "events.jsonl"
    code = """
import os, sys
from ts_autotrack import shutdown, track
from ts_autotrack.testing import capture_events

with capture_events():
    track("captured", user_id="u")
    if hasattr(os, "fork"):
        child = os.fork()
        track("captured_too", user_id="u")
        if not child:
            sys.exit()
        os.waitpid(child, 0)
    shutdown()
track("delivered", user_id="u")
"""
    done = run_python(code, TS_AUTOTRACK_EXPORTER="jsonl", TS_AUTOTRACK_JSONL_PATH=str(path))
    assert done.stderr == ""
    assert [event.event_name for event in read(path)] == ["delivered"]


def test_other_attributes_of_a_decorated_class_stay_as_they_are() -> None:
    """A class whose name begins with "test", such as a client of Flask, is no test."""
    members = {"test_client_class": dict, "test_client": pytest.fixture(lambda self: self)}
    decorated = capture_events()(type("TestReports", (), members))
    assert {name: vars(decorated)[name] for name in members} == members


def test_generators_are_refused() -> None:
    """A capture around a generator would end before the generator begins: its events would be sent."""

    def fixture() -> Iterator[int]:
        yield 1

    async def async_fixture() -> AsyncIterator[int]:
        yield 1

    for function in (fixture, async_fixture):
        with pytest.raises(TypeError, match="`with` block inside"):
            capture_events()(function)
