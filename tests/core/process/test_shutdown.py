"""shutdown: its delivery, its timeout, and the way back."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, ScriptedServer, run_python, wait_until
from tests.core.conftest import account_closes, names
from ts_autotrack import configure, flush, shutdown, stats, track
from ts_autotrack.typing import Stats

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


@pytest.mark.usefixtures("server")
def test_shutdown_with_no_time_sends_nothing() -> None:
    """A shutdown with a timeout of 0 sends nothing."""
    track("first")
    assert flush(5)
    configure(flush_interval=60)
    for _ in range(5):
        track("e")
    shutdown(0)
    account = account_closes()
    assert account.delivered + account.pending == 6


def test_shutdown_delivers_then_counts_what_comes_later(server: ScriptedServer) -> None:
    """Shutdown drains; later events are counted as dropped; a second call does no harm; `configure` begins anew."""
    track("before")
    assert shutdown(5)
    track("after")
    assert shutdown(5)
    assert flush(1)
    assert names(server.items) == ["before"]
    assert account_closes().dropped == {"shutdown": 1}
    configure(api_key="again")
    track("again")
    assert flush(5)
    assert names(server.items) == ["before", "again"]
    assert account_closes() == Stats(3, 2, 0, 0, {"shutdown": 1})


def test_shutdown_keeps_its_timeout(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server without an answer holds shutdown up for the timeout and no longer."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    track("e")
    wait_until(lambda: server.requests, "the request")
    began = time.monotonic()
    assert not shutdown(0.3)
    assert 0.3 <= time.monotonic() - began < 1.5
    assert "1 event was not delivered in time; it is lost with the process" in caplog.text
    server.always = None
    configure(api_key="again")  # the new worker waits for the old worker, which still holds the batch
    track("second")
    gate.set()
    assert flush(10)
    assert account_closes().delivered == 2


def test_shutdown_and_flush_while_the_first_event_is_being_taken(inspector: Inspector) -> None:
    """At any moment of the first event, shutdown takes effect, nothing is sent twice, and flush waits for the event."""
    code = """
import sys, threading, time
import ts_autotrack
sys.setswitchinterval(1e-6)
how, pause = sys.argv[1], float(sys.argv[2])
thread = threading.Thread(target=lambda: ts_autotrack.track("e", user_id="u", group_id="g"))
thread.start()
time.sleep(pause)
settled = ts_autotrack.shutdown(30) if how == "shutdown" else ts_autotrack.flush(30)
thread.join()
settled = ts_autotrack.flush(30) and settled
now = ts_autotrack.stats()
print(settled, now.accepted, now.delivered + sum(now.dropped.values()))
"""
    for how in ("shutdown", "flush"):
        for pause in (0, 0.001, 0.004, 0.016):
            setting = f"import sys; sys.argv = ['', {how!r}, '{pause}']\n"
            done = run_python(setting + code, THRIVESTACK_ENDPOINT=inspector.endpoint)
            assert done.stdout == "True 1 1\n", (how, pause, done.stdout, done.stderr)
    ids = [item["context"]["event_id"] for item in inspector.items()]
    assert len(ids) == len(set(ids)) >= 4


def test_flush_of_a_library_that_is_off() -> None:
    """flush() is False once an event was dropped for want of a key; it is True if the library is off on purpose."""
    code = """
from ts_autotrack import configure, flush, track
print(flush(1))
track("e", user_id="u")
print(flush(1), flush(1))
configure(exporter="none")
track("e", user_id="u")
print(flush(1))
"""
    done = run_python(code)
    assert done.stdout == "True\nFalse False\nTrue\n"
    assert len(done.stderr.splitlines()) == 1


def test_configure_after_a_failed_shutdown_takes_over(inspector: Inspector, dead_endpoint: str) -> None:
    """Events left by a failed shutdown are delivered once the settings are mended."""
    code = f"""
import ts_autotrack
ts_autotrack.track("e", user_id="u", group_id="g")
print(ts_autotrack.shutdown(0.2))
ts_autotrack.configure(endpoint={inspector.endpoint!r})
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint)
    assert done.stdout == "False\nTrue 1\n", done.stderr


def test_durable_shutdown_leaves_events_to_another_process(server: ScriptedServer, tmp_path: Path) -> None:
    """With an outbox the call does not wait for a failing server; a later flush() delivers the events."""
    configure(outbox=str(tmp_path), exit_timeout=60)
    server.always = lambda _: Answer(503)
    track("kept", user_id="u", group_id="g")
    wait_until(lambda: server.requests, "a request has failed")
    began = time.monotonic()
    assert not shutdown(durable=True)
    assert time.monotonic() - began < 30
    assert len(list(tmp_path.glob("*.events"))) == 1
    server.always = None
    configure()
    assert flush(10)
    assert list(tmp_path.glob("*.events")) == []


def test_durable_shutdown_holds_nothing_against_a_living_server(inspector: Inspector, tmp_path: Path) -> None:
    """Work that ends with no time left is no wait in vain: other processes go on to wait for their requests."""
    for number in range(5):
        configure(outbox=str(tmp_path), flush_interval=60)
        track("e", {"number": number}, user_id="u", group_id="g")
        shutdown(0, durable=True)
        assert not (tmp_path / "unanswered").exists()
    configure()
    assert flush(10)
    wait_until(lambda: len(inspector.items()) == 5, "each event has arrived once")


def test_durable_shutdown_remembers_a_request_that_failed_at_the_end(server: ScriptedServer, tmp_path: Path) -> None:
    """A thread that ends by itself after a failed request counts as a wait in vain, not as an answer."""
    server.always = lambda _: Answer(503, headers={"Retry-After": "60"})
    configure(outbox=str(tmp_path), exit_timeout=60)
    track("kept", user_id="u", group_id="g")
    wait_until(lambda: server.requests, "a request has failed")
    assert not shutdown(durable=True)
    assert (tmp_path / "unanswered").exists()


def test_durable_shutdown_without_an_outbox_delivers(inspector: Inspector) -> None:
    """Without an outbox the call waits as usual."""
    configure(flush_interval=60)
    for _ in range(5):
        track("e")
    assert shutdown(durable=True)
    assert len(inspector.items()) == 5


@pytest.mark.parametrize("outbox", [True, False])
def test_durable_shutdown_keeps_what_comes_later(inspector: Inspector, tmp_path: Path, outbox: bool) -> None:  # noqa: FBT001 - a parameter
    """An event of a later exit hook is no drop: with a living server it arrives, with or without an outbox."""
    if outbox:
        configure(outbox=str(tmp_path))
    track("first", user_id="u", group_id="g")
    shutdown(durable=True)
    track("later", user_id="u", group_id="g")
    configure()
    assert flush(10)
    assert sorted(item["event_name"] for item in inspector.items()) == ["first", "later"]
    assert account_closes().dropped == {}


def test_process_that_goes_on_after_a_durable_shutdown_waits_for_nothing(server: ScriptedServer) -> None:
    """After `configure()` a call tracks in the background again."""
    assert shutdown(durable=True)
    configure(exit_timeout=60)
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    began = time.monotonic()
    track("e")
    assert time.monotonic() - began < 30
    gate.set()
    assert flush(10)


def test_durable_shutdown_waits_for_the_request_under_way(server: ScriptedServer, tmp_path: Path) -> None:
    """A request that has begun is not given up: its events would be sent twice."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    configure(outbox=str(tmp_path), exit_timeout=60)
    track("sent", user_id="u", group_id="g")
    wait_until(lambda: server.requests, "a request is under way")
    thread = threading.Thread(target=shutdown, kwargs={"durable": True})
    thread.start()
    gate.set()
    thread.join(60)
    assert stats().delivered == 1
    assert list(tmp_path.glob("*.events")) == []


def test_durable_shutdown_waits_once_for_a_server_that_never_answers(server: ScriptedServer, tmp_path: Path) -> None:
    """The first process gives up after half a second; for a minute no other process waits. No event is lost."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    waits = []
    for number in range(2):
        configure(outbox=str(tmp_path), exit_timeout=60)
        track("kept", user_id="u", group_id="g")
        wait_until(lambda: len(server.requests) > number, "a request is under way")  # noqa: B023 - at once
        began = time.monotonic()
        assert not shutdown(durable=True)
        waits.append(time.monotonic() - began)
    assert waits[1] < waits[0]
    assert 0.5 <= waits[0] < 30
    server.always = None
    gate.set()
    configure()
    assert flush(20)
    assert {item["event_name"] for item in server.items} == {"kept"}
    assert len({item["context"]["event_id"] for item in server.items}) == 2


def test_flush_opens_the_outbox(inspector: Inspector, dead_endpoint: str, tmp_path: Path) -> None:
    """A process without events delivers the events of ended processes after its first flush()."""
    setting = {"TS_AUTOTRACK_OUTBOX": str(tmp_path), "TS_AUTOTRACK_EXIT_TIMEOUT": "0.1"}
    track_one = 'import ts_autotrack; ts_autotrack.track("e", user_id="u")'
    run_python(track_one, **setting, THRIVESTACK_ENDPOINT=dead_endpoint)
    code = """
import ts_autotrack, time
ts_autotrack.flush(0)
end = time.monotonic() + 30
while ts_autotrack.stats().delivered < 1 and time.monotonic() < end: time.sleep(0.05)
print(ts_autotrack.stats().adopted)
"""
    done = run_python(code, **setting, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "1\n", done.stderr
    assert len(inspector.items()) == 1
