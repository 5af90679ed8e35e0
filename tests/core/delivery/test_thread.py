"""The start of the library's thread: refused, failing once, or interrupted by another event."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import DEADLINE, run_python, wait_until
from ts_autotrack._core.delivery.thread import BackgroundThread

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from tests.conftest import Inspector


def test_no_thread_can_be_started(inspector: Inspector) -> None:
    """If no thread can be started, events are kept, and the end of the process delivers them."""
    code = """
import threading
def refuse(self): raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
import ts_autotrack
from ts_autotrack import track, flush, stats, shutdown
for n in range(3): track("e", user_id="u")
print(flush(0.1), stats().pending, shutdown(5), stats().delivered)
ts_autotrack.configure(api_key="again")
track("e", user_id="u")
print(shutdown(5), stats().delivered, stats().dropped)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "False 3 True 3\nTrue 4 {}\n", done.stderr
    assert done.stderr.count("no thread can be started") == 1


def test_start_that_fails_is_tried_again(inspector: Inspector) -> None:
    """If the start fails once, the event is kept, and the next event tries again."""
    code = """
import threading
start, failures = threading.Thread.start, [RuntimeError("can't start new thread")]
def flaky(self):
    if failures: raise failures.pop()
    start(self)
threading.Thread.start = flaky
import ts_autotrack
ts_autotrack.track("first", user_id="u")
ts_autotrack.track("second", user_id="u")
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 2\n", done.stderr


def test_events_tracked_while_the_thread_is_being_started(inspector: Inspector) -> None:
    """An event tracked while the first event starts the thread is delivered, too."""
    code = """
import threading
start = threading.Thread.start
def slow(self):
    ts_autotrack.track("meanwhile", user_id="u")
    start(self)
threading.Thread.start = slow
import ts_autotrack
ts_autotrack.track("first", user_id="u")
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 2\n", done.stderr


@pytest.mark.parametrize("durability", ["memory", "batch", "event"])
def test_flush_repeats_an_interrupted_start(inspector: Inspector, tmp_path: Path, durability: str) -> None:
    """An event whose call a signal handler interrupted in the start of the thread is delivered by the next flush()."""
    code = f"""
import sys, threading, ts_autotrack
def interrupt(frame, event, _):
    if event == "call" and frame.f_code.co_name == "start" and frame.f_code.co_filename == threading.__file__:
        sys.settrace(None)
        raise KeyboardInterrupt
if {durability!r} != "memory":
    ts_autotrack.configure(outbox={str(tmp_path)!r}, durability={durability!r})
sys.settrace(interrupt)
try:
    ts_autotrack.track("first", user_id="u")
except KeyboardInterrupt:
    print(ts_autotrack.flush({DEADLINE}), ts_autotrack.stats().delivered)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 1\n", done.stderr


@pytest.mark.parametrize("function", ["_start_now", "start", "wait"])
def test_a_start_interrupted_by_a_signal_handler_leads_to_one_running_thread(function: str) -> None:
    """The thread runs once, whether the handler raises before the attempt, before the thread exists or after."""
    runs, go = [], threading.Event()

    def run() -> None:
        runs.append(threading.get_ident())
        go.wait(DEADLINE)

    def interrupt(frame: FrameType, event: str, _: object) -> None:
        file = threading.__file__ if function != "_start_now" else sys.modules[BackgroundThread.__module__].__file__
        if event == "call" and frame.f_code.co_name == function and frame.f_code.co_filename == file:
            sys.settrace(None)
            raise KeyboardInterrupt

    thread = BackgroundThread(run, "worker")
    interval, tracer = sys.getswitchinterval(), sys.gettrace()
    sys.setswitchinterval(5)  # the new thread does not run before the second wake
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            thread.wake()
        assert thread.wake()
    finally:
        sys.settrace(tracer)
        sys.setswitchinterval(interval)
    wait_until(lambda: thread.wake() and runs, "the thread runs")
    go.set()
    assert len(runs) == 1
