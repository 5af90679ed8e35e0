"""Random life cycles of one process: settings, shutdowns, forks, outages and raising signal handlers in any order."""

from __future__ import annotations

import os
import posix
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import ts_autotrack
from tests.conftest import Answer, ScriptedServer, run_python, wait_until
from ts_autotrack import configure, flush, shutdown, stats, track
from ts_autotrack._core import diagnostics
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack._core.process.fork import ForkGuard

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

PACKAGE = str(Path(ts_autotrack.__file__).parent)


class InterruptError(BaseException):
    """Raised by the signal handler of these tests, past every `except Exception`."""


def interrupt(_: int, frame: FrameType | None) -> None:
    """Raise in the middle of the interrupted code, as a watchdog or Ctrl-C does.

    Code of the standard library is let go on: logging and threading do not survive an exception at any moment.
    """
    if frame is not None and frame.f_code.co_filename.startswith(PACKAGE):
        raise InterruptError
    signal.setitimer(signal.ITIMER_REAL, 0.00005)


def many() -> None:
    """Track 50 events."""
    for _ in range(50):
        track("e", user_id="u", group_id="g")


class LifeCycles(RuleBasedStateMachine):
    """One process with two servers; every event is delivered once or counted with a reason."""

    @initialize(durability=st.sampled_from(["memory", "batch", "event"]))
    def begin(self, *, durability: str) -> None:
        """Start the library."""
        client.reset()
        client.forget_arguments()
        client.pacing = Pacing(first_backoff=0.01, max_backoff=0.05, eager_interval=0.01)
        self.servers = [ScriptedServer(), ScriptedServer()]
        self.gate = threading.Event()
        self.tracked = 0
        if durability != "memory":
            configure(outbox=tempfile.mkdtemp(), durability=durability)
        configure(endpoint=self.servers[0].endpoint, api_key="k", flush_interval=0.01, request_timeout=0.5)

    @rule(count=st.integers(1, 5))
    def track(self, *, count: int) -> None:
        """Track events."""
        for _ in range(count):
            track("e", user_id="u", group_id="g")
        self.tracked += count

    @rule(server=st.integers(0, 1), interval=st.sampled_from([0.0, 0.05, 30.0]))
    def configure(self, *, server: int, interval: float) -> None:
        """Change the settings, or begin again after a shutdown."""
        configure(endpoint=self.servers[server].endpoint, flush_interval=interval)

    @rule(timeout=st.sampled_from([0.0, 0.02, 0.3]))
    def shutdown(self, *, timeout: float) -> None:
        """Shut down, perhaps too early."""
        shutdown(timeout)

    @rule(timeout=st.sampled_from([0.0, 0.02, 0.3]))
    def flush(self, *, timeout: float) -> None:
        """Flush, perhaps too early."""
        flush(timeout)

    @rule(status=st.sampled_from([200, 503, 0]))
    def answer(self, *, status: int) -> None:
        """Let the servers accept, fail, or hang until the next change."""
        self.gate.set()
        self.gate = gate = threading.Event()
        for server in self.servers:
            server.always = None if status == 200 else lambda _: Answer(503) if status else Answer(wait=gate)

    @rule(delay=st.floats(0.0001, 0.02), action=st.sampled_from(["track", "flush", "shutdown", "configure", "fork"]))
    def interrupted(self, *, delay: float, action: str) -> None:
        """Let a signal handler raise in the middle of a call."""
        actions: dict[str, Callable[[], object]] = {
            "track": many,
            "flush": lambda: flush(0.05),
            "shutdown": lambda: shutdown(0.05),
            "configure": configure,
            "fork": self.fork,
        }
        signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            actions[action]()
        except InterruptError:
            pass
        finally:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # first: the handler sets the timer again
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @rule()
    def fork(self) -> None:
        """Fork a child that only ends: nothing of this process may change."""
        child = os.fork()
        if child == 0:
            # Not `os._exit`, in which coverage writes to SQLite: a thread of the parent may hold SQLite's lock.
            posix._exit(0 if stats().pending == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0

    def teardown(self) -> None:
        """Deliver the rest; then compare the account with the servers."""
        if not hasattr(self, "servers"):
            return
        self.answer(status=200)
        configure()
        assert flush(20), stats()
        account = stats()
        ends = account.delivered + account.pending + account.rejected + account.handed_over
        assert account.accepted == ends + sum(account.dropped.values()), account
        assert account.pending == 0
        tracked = account.accepted - account.adopted
        assert tracked >= self.tracked, account  # interrupted calls may have tracked more
        arrived = {item["context"]["event_id"] for server in self.servers for item in server.items}
        assert set(account.dropped) <= {"shutdown"}, account
        assert len(arrived) + sum(account.dropped.values()) == tracked, account
        assert shutdown(5)
        for server in self.servers:
            server.close()
        diagnostics.reset()


LifeCycles.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
# CPython reports an exception in a fork hook instead of raising it.
TestLifeCycles = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")(LifeCycles.TestCase)
TestLifeCycles.__doc__ = "The account closes and every event arrives through every history of calls, forks and outages."


def test_interrupted_fork_leaves_no_lock_behind() -> None:
    """A signal handler that raises while a fork waits for the second lock leaves both locks free."""
    guard = ForkGuard()
    release = threading.Event()

    def hold() -> None:
        with guard.setup_lock:
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(InterruptError):
        guard.hold()
    guard.release()
    release.set()
    holder.join()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    free: list[bool] = []

    def probe() -> None:
        free.extend(lock.acquire(timeout=1) for lock in (guard.drain_lock, guard.setup_lock))

    prober = threading.Thread(target=probe)
    prober.start()
    prober.join()
    assert free == [True, True]


def test_events_survive_shutdowns_that_time_out(server: ScriptedServer) -> None:
    """Two shutdowns that time out during one request, each undone by `configure`, keep the account and the events."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    for _ in range(5):
        track("e", user_id="u", group_id="g")
    wait_until(lambda: server.requests, "the request")
    for _ in range(2):
        assert not shutdown(0.1)
        configure()
        assert stats().pending == 5
    assert not flush(0.1)
    server.always = None
    gate.set()
    assert flush(10)
    assert (stats().accepted, stats().delivered) == (5, 5)


@pytest.mark.parametrize("durability", ["batch", "event"])
def test_flush_delivers_the_files_of_all_earlier_workers(
    server: ScriptedServer, tmp_path: Path, durability: str
) -> None:
    """After shutdowns that left events in the outbox, one flush() delivers the events of each file, in order."""
    configure(outbox=str(tmp_path), durability=durability)
    server.always = lambda _: Answer(503)
    for number in range(4):
        track(str(number), user_id="u", group_id="g")
        assert not shutdown(0)
        configure()
    server.always = None
    assert flush(10)
    names = dict.fromkeys(item["event_name"] for item in server.items)  # an ended request may have arrived, too
    assert list(names) == ["0", "1", "2", "3"]
    assert list(tmp_path.glob("*.events")) == []


@pytest.mark.slow
def test_configure_wins_over_a_first_event_in_progress() -> None:
    """Settings given while a thread is at its first event are in force afterwards."""
    code = """
import sys, threading, time
import ts_autotrack
go = threading.Event()
def first():
    go.wait()
    ts_autotrack.track("first", user_id="u")
thread = threading.Thread(target=first); thread.start()
go.set(); time.sleep({delay})
ts_autotrack.configure(exporter="jsonl", jsonl_path="/dev/null", api_key="k")
thread.join()
for _ in range(5): ts_autotrack.track("later", user_id="u")
assert ts_autotrack.flush(5)
assert ts_autotrack.stats().delivered >= 5, ts_autotrack.stats()
"""
    for step in range(20):
        done = run_python(code.format(delay=step * 0.001))
        assert done.returncode == 0, done.stderr


def test_lock_left_by_a_signal_handler_is_released(server: ScriptedServer) -> None:
    """Locks that the main thread holds by an interruption, and not by work in progress, do not stop delivery."""
    track("before", user_id="u", group_id="g")
    assert flush(10)
    client.forks.setup_lock.acquire()
    client.forks.drain_lock.acquire()
    track("after", user_id="u", group_id="g")
    assert flush(10)
    assert [item["event_name"] for item in server.items] == ["before", "after"]
