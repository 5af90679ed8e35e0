"""The report of a process: its contents, its receiver, and its times."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any

import pytest

import ts_autotrack
from tests.conftest import ScriptedServer, wait_until
from ts_autotrack import flush, shutdown, stats, suppress, track, track_feature, user_context
from ts_autotrack._core import diagnostics
from ts_autotrack._core.client import client
from ts_autotrack._core.config import load
from ts_autotrack._core.counters import MAX_PLACES, OTHER_PLACES, Counters
from ts_autotrack._core.delivery import reporter
from ts_autotrack._core.redaction import mask, protect
from ts_autotrack._core.report import encode, program, report, settings_of
from ts_autotrack._core.transports.http import HttpTransport
from ts_autotrack.testing import capture_events
from ts_autotrack.typing import Stats

ENDPOINT = "http://127.0.0.1:1"
KEY = "secret-key-of-a-test"


@pytest.fixture
def inspecting(server: ScriptedServer) -> ScriptedServer:
    """A server that says that it is an inspector."""
    server.inspector = True
    ts_autotrack.configure(api_key=KEY)
    return server


def last_report(server: ScriptedServer, accepted: int) -> dict[str, Any]:
    """Return the first report with this number of accepted events."""
    found: dict[str, Any] = wait_until(
        lambda: next((found for found in server.reports if found["stats"]["accepted"] == accepted), None),
        f"a report of {accepted} events",
    )
    return found


LINE = 4 + sys._getframe().f_lineno
"""Line of the decorator below."""


@track_feature("report_export")
def export() -> None:
    """Be tracked."""


def test_process_that_knows_no_user_reports_the_places(inspecting: ScriptedServer) -> None:
    """A process whose events all lack a user sends none of them, and reports the places with their counts."""
    for _ in range(3):
        export()
    track("opened")
    found = last_report(inspecting, 4)
    assert inspecting.requests == []
    assert inspecting.asked == ["/reports"]
    assert found["unattributed"][0] == {
        "place": f"{__name__}.export, line {LINE}",
        "event": "feature_used",
        "feature": "report_export",
        "count": 3,
    }
    assert found["unattributed"][1]["event"] == "opened"
    assert "test_report" in found["unattributed"][1]["place"]
    assert found["drops"] == found["stats"]["dropped"] == {"unattributed": 4}
    mechanism = "watched" if sys.version_info >= (3, 12) else "wrapped"
    assert [f"{__name__}.export, line {LINE}", "report_export", mechanism] in found["functions"]
    assert found["pid"] == os.getpid()
    assert found["version"] == ts_autotrack.__version__
    assert found["off_reason"] is None
    assert any("report_export" in text for text in found["warnings"])


def test_report_follows_the_events(inspecting: ScriptedServer) -> None:
    """A process that sends events asks nothing: the answer to its events tells that an inspector is there."""
    track("e", user_id="u")
    assert flush(10)
    found = last_report(inspecting, 1)
    assert (found["stats"]["delivered"], found["stats"]["pending"], found["ended"]) == (1, 0, False)
    assert inspecting.asked == []
    assert len(inspecting.items) == stats().delivered == stats().accepted == 1


def test_last_report_tells_the_end(inspecting: ScriptedServer) -> None:
    """The last report has the whole account, and says that it is the last one."""
    track("e", user_id="u")
    assert shutdown(10)
    found = inspecting.reports[-1]
    assert (found["stats"]["delivered"], found["ended"]) == (1, True)


def test_report_shows_no_credential(inspecting: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither settings, nor warnings, nor the program's name show a key; arguments of the program are left out."""
    monkeypatch.setattr(sys, "argv", ["/srv/app.py", "--password", "hunter2-hunter2"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    diagnostics.warn_now("test", f"the key {KEY} is no good")
    track(f"event {KEY}")
    found = last_report(inspecting, 1)
    assert KEY not in str(found)
    assert "hunter2" not in str(found)
    assert found["settings"]["api_key"] == "***"
    assert found["program"] == "/srv/app.py"
    assert any("the key *** is no good" in text for text in found["warnings"])


def test_other_server_gets_no_report(server: ScriptedServer) -> None:
    """A local server that is no inspector is asked once, without a body, and never gets a report."""
    track("nobody")
    wait_until(lambda: server.asked, "the question")
    assert flush(10)
    worker: Any = client.worker
    transport = worker.destination.opened
    wait_until(lambda: transport.inspector is False, "the answer")
    track("nobody")
    assert flush(10)
    assert shutdown(10)
    assert (server.asked, server.requests) == (["/reports"], [])


def test_header_of_another_machine_counts_for_nothing(server: ScriptedServer) -> None:
    """A server that is not on this machine gets no report, even if its answers have the header."""
    server.inspector = True
    endpoint = server.endpoint.replace("127.0.0.1", "0.0.0.0")  # noqa: S104 - reaches this machine by another name
    transport = HttpTransport(load({"endpoint": endpoint, "api_key": "k"}).server)
    assert transport.inspector is False
    assert transport.send("/track", [b"{}"], 10).status == 200
    assert transport.inspector is False
    transport.close()


def test_library_that_is_off_reports_nothing(inspecting: ScriptedServer) -> None:
    """After the settings have turned the library off, the worker reports no more."""
    track("nobody")
    last_report(inspecting, 1)
    ts_autotrack.configure(disabled=True)
    worker: Any = client.worker
    worker._reporter._next_at = worker._reporter._repeat_at = 0.0
    before = len(inspecting.reports)
    worker._report()
    assert shutdown(10)
    assert len(inspecting.reports) == before


def test_captured_test_reports_nothing(inspecting: ScriptedServer) -> None:
    """Events captured by a test are in no report, and no report is sent meanwhile."""
    track("nobody")
    last_report(inspecting, 1)
    worker: Any = client.worker
    with capture_events():
        track("captured")
        worker._reporter._next_at = worker._reporter._repeat_at = 0.0
        before = len(inspecting.reports)
        worker._reporter.run()
        assert len(inspecting.reports) == before
    track("nobody")
    assert last_report(inspecting, 2)["drops"] == {"unattributed": 2}


def test_inspector_that_hangs_delays_neither_events_nor_the_end_for_long(inspecting: ScriptedServer) -> None:
    """A report without an answer is given up; events are delivered after it, and the process ends."""
    inspecting.hold = threading.Event()
    try:
        track("first", user_id="u")
        assert flush(10)
        wait_until(lambda: inspecting.reports, "a report")
        track("second", user_id="u")
        assert flush(10)
        began = time.monotonic()
        assert shutdown(10)
        assert time.monotonic() - began < 8  # a report of half a second, on a busy machine
    finally:
        inspecting.hold.set()
    assert [item["event_name"] for item in inspecting.items] == ["first", "second"]


def test_flush_and_the_end_wait_for_no_report(inspecting: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report in progress is ended when `flush` or the end of the process needs the sender; no event is lost."""
    monkeypatch.setattr(reporter, "TIMEOUT", 60.0)
    inspecting.hold = threading.Event()
    try:
        track("first", user_id="u")
        wait_until(lambda: inspecting.reports, "a report")
        track("second", user_id="u")
        assert flush(20)
        worker: Any = client.worker
        worker._reporter._next_at = worker._reporter._repeat_at = 0.0
        track("third", user_id="u")
        wait_until(lambda: len(inspecting.reports) == 2, "the next report")
        track("fourth", user_id="u")
        assert shutdown(20)
    finally:
        inspecting.hold.set()
    assert [item["event_name"] for item in inspecting.items] == ["first", "second", "third", "fourth"]
    assert len(inspecting.reports) == 2


def test_places_are_bounded() -> None:
    """A program with any number of places takes bounded memory; the sum of the counts stays right."""
    counters = Counters()
    for number in range(MAX_PLACES + 50):
        counters.count_place(f"place {number}", "e", "")
        counters.count_place("place 1", "e", "")
    assert len(counters.unattributed) == MAX_PLACES + 1
    assert counters.unattributed[OTHER_PLACES] == 50
    assert sum(counters.unattributed.values()) == 2 * (MAX_PLACES + 50)


def test_warnings_in_a_report_are_bounded() -> None:
    """A report keeps the last warnings, each up to a length."""
    for number in range(50):
        diagnostics.log("warning", "%d %s", number, "x" * 1_000)
    diagnostics.log("info", "no warning")
    assert [text.split()[0] for text in diagnostics.recent] == [str(number) for number in range(30, 50)]
    assert {len(text) for text in diagnostics.recent} == {diagnostics.MAX_RECENT_CHARS}


def test_settings_in_a_report_have_the_names_of_configure() -> None:
    """A report has settings under the names that `configure()` takes; a URL's secrets are masked."""
    arguments = {"endpoint": ENDPOINT, "api_key": KEY, "outbox": "/o", "baggage": True, "properties": {"a": 1}}
    shown = settings_of(load(arguments))
    assert (shown["outbox"], shown["baggage"], shown["properties"]) == ("/o", True, {"a": 1})
    assert (shown["endpoint"], shown["api_key"], shown["auth_token"]) == (ENDPOINT, "***", None)


def test_report_has_a_size_that_the_inspector_takes() -> None:
    """A report of many long places is shortened, the most frequent places first."""
    places = {("p" * 300, f"event {number}", ""): 1_000 - number for number in range(MAX_PLACES)}
    found = json.loads(encode(report(Stats(0, 0, 0, 0, {}), load({}), places)))
    assert len(json.dumps(found)) < 64_000
    assert [place["event"] for place in found["unattributed"][:2]] == ["event 0", "event 1"]
    assert len(found["unattributed"]) >= MAX_PLACES // 2


def test_any_program_name_can_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of modules and names that are no UTF-8 can be reported; an embedded Python may have no arguments."""
    values = report(Stats(0, 0, 0, 0, {}), load({"outbox": "/\udcff"}), {})
    assert b'"pid"' in encode(values)
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", type("Spec", (), {"name": "package.__main__"}))
    assert program() == "package"
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.delattr(sys, "argv")
    assert program() == ""


def test_suppressed_events_have_no_place(inspecting: ScriptedServer) -> None:
    """Only events without a user have a place in the report."""
    with suppress():
        track("suppressed")
    with user_context("u"):
        track("e")
    found = last_report(inspecting, 2)
    assert found["unattributed"] == []
    assert found["drops"] == {"suppressed": 1}


def test_long_report_costs_little() -> None:
    """Credentials are masked in the shortened report only: masking 1 MB would stop all threads for 0.1 s."""
    protect(KEY)
    places = {(f"place {number}", "e", "x" * 5_000): 1 for number in range(MAX_PLACES)}
    values = report(Stats(1, 0, 0, 0, {"unattributed": 1}), load({"endpoint": ENDPOINT, "api_key": KEY}), places)
    began = time.thread_time()
    mask(json.dumps(values))
    halfway = time.thread_time()
    assert len(encode(values)) <= 60_000
    assert time.thread_time() - halfway < halfway - began
