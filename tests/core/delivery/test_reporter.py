"""The reporter alone, with a fake inspector: when it reports, and how often."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.config import load
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.destination import Destination
from ts_autotrack._core.delivery.reporter import COST_FACTOR, FILE_INTERVAL, PAUSE, TIMEOUT, Reporter
from ts_autotrack.typing import Response, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest


class FakeInspector:
    """A transport that keeps the reports."""

    def __init__(self) -> None:
        self.inspector: bool | None = True
        self.answer = Response(200)
        self.reports: list[bytes] = []
        self.asked = 0
        self.cpu = 0.0
        self.cancelled = 0
        self.during: Callable[[], None] = lambda: None

    def ask(self, timeout: float) -> None:
        """Count the question."""
        del timeout
        self.asked += 1

    def report(self, body: bytes, timeout: float) -> Response:
        """Keep the report, and use CPU."""
        assert 0 < timeout <= TIMEOUT
        until = time.thread_time() + self.cpu
        while time.thread_time() < until:
            pass
        self.during()
        self.reports.append(body)
        return self.answer

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Take no events."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Count the end of a request from another thread."""
        self.cancelled += 1

    def close(self) -> None:
        """Do nothing."""


class FakeFile:
    """A file that keeps everything written."""

    def __init__(self) -> None:
        self.exists = False
        self.written: list[bytes] = []

    def write(self, report: bytes) -> None:
        """Keep the report."""
        self.exists = True
        self.written.append(report)

    def remove_stale(self) -> None:
        """Do nothing: there are no other processes."""

    def remove(self) -> None:
        """Remove the file."""
        self.exists = False


class Bench:
    """A reporter with a fake inspector and a fake file."""

    def __init__(self) -> None:
        self.transport = FakeInspector()
        self.stats = Stats(1, 0, 0, 0, {"unattributed": 1})
        config = load({"endpoint": "http://127.0.0.1:1", "api_key": "k", "in_tests": True})
        lock: Any = threading.RLock()
        self.destination = Destination(config, lambda: self.transport, lock, threading.Lock())
        self.destination.transport()
        self.counters = Counters()
        self.file = FakeFile()
        self.reporter = Reporter(self.destination, self.counters, lambda: self.stats, self.file)

    def run(self) -> int:
        """Let the reporter run after its interval; return the number of reports so far."""
        self.reporter._next_at = 0.0
        self.reporter.run()
        return len(self.transport.reports)


def test_report_is_sent_if_something_has_changed() -> None:
    """Reports come once a second at most, after a change, or as a sign of life."""
    bench = Bench()
    assert bench.run() == 1
    bench.stats = bench.stats._replace(accepted=2)
    bench.reporter.run()
    assert len(bench.transport.reports) == 1  # the second is not over
    assert bench.run() == 2
    assert bench.run() == 2  # nothing has changed
    bench.reporter._repeat_at = 0.0
    assert bench.run() == 3


def test_reports_take_a_millisecond_of_cpu_a_second() -> None:
    """A report that costs more CPU is followed by a longer pause."""
    bench = Bench()
    bench.transport.cpu = 0.005
    before = time.monotonic()
    bench.run()
    assert bench.reporter._next_at - before >= COST_FACTOR * 0.005


def test_failed_report_is_forgotten() -> None:
    """A report without an answer is no fault; the next one comes after a pause."""
    bench = Bench()
    bench.transport.answer = Response(0)
    before = time.monotonic()
    assert bench.run() == 1
    assert bench.reporter._next_at - before >= PAUSE
    assert bench.run() == 2


def test_only_a_process_with_nothing_to_send_asks() -> None:
    """Before the first answer, events that wait will bring one; events that were dropped will not."""
    bench = Bench()
    bench.transport.inspector = None
    for pending, dropped, asked in ((1, 1, 0), (0, 0, 0), (0, 1, 1)):
        bench.stats = Stats(2, 0, pending, 0, {"unattributed": 1} if dropped else {})
        assert bench.run() == 0
        assert bench.transport.asked == asked


def test_file_is_written_if_other_events_were_dropped() -> None:
    """The file follows the drops, every five seconds at most; a file that somebody deleted is written again."""
    bench = Bench()

    def written() -> int:
        bench.reporter._write_at = 0.0
        bench.run()
        return len(bench.file.written)

    bench.stats = bench.stats._replace(dropped={})
    assert written() == 0  # nothing was dropped
    bench.stats = bench.stats._replace(dropped={"unattributed": 1})
    assert written() == 1
    assert bench.reporter._write_at - time.monotonic() > FILE_INTERVAL / 2
    bench.stats = bench.stats._replace(accepted=9)
    assert written() == 1
    bench.file.exists = False
    assert written() == 2
    bench.stats = bench.stats._replace(dropped={"unattributed": 2})
    bench.run()
    assert len(bench.file.written) == 2  # the five seconds are not over
    assert written() == 3
    bench.reporter.finish(None)
    assert not bench.file.exists


def test_last_report_keeps_to_the_deadline() -> None:
    """At the end of the process the last report is sent if time is left, even if nothing has changed."""
    bench = Bench()
    assert bench.run() == 1
    bench.reporter.finish(time.monotonic())
    assert len(bench.transport.reports) == 1
    bench.reporter.finish(time.monotonic() + 10)
    assert b'"ended":true' in bench.transport.reports[-1]


def test_last_report_waits_for_no_silent_inspector() -> None:
    """The end of a process waits for one request at most: an inspector that did not answer gets no last report."""
    bench = Bench()
    bench.transport.answer = Response(0)
    assert bench.run() == 1
    bench.reporter.finish(time.monotonic() + 10)
    assert len(bench.transport.reports) == 1
    bench.transport.answer = Response(200)
    assert bench.run() == 2
    bench.reporter.finish(time.monotonic() + 10)
    assert len(bench.transport.reports) == 3


def test_interrupt_ends_a_report_only() -> None:
    """A report in progress can be ended from another thread; the last report and requests with events go on."""
    bench = Bench()
    bench.reporter.interrupt()
    assert bench.transport.cancelled == 0
    bench.transport.during = bench.reporter.interrupt
    bench.run()
    assert bench.transport.cancelled == 1
    bench.reporter.finish(time.monotonic() + 10)
    assert bench.transport.cancelled == 1


def test_no_question_in_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under pytest no request is made that the application did not cause: a test may count its server's requests."""
    bench = Bench()
    bench.transport.inspector = None
    monkeypatch.setenv("PYTEST_VERSION", "8")
    monkeypatch.setenv("TS_AUTOTRACK_IN_TESTS", "0")
    bench.destination.config = load({"endpoint": "http://127.0.0.1:1", "api_key": "k"})
    bench.destination.transport()
    assert bench.run() == 0
    assert bench.transport.asked == 0
