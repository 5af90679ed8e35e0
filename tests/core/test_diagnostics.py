"""Faults of the library are reported and survived; credentials are never shown."""

from __future__ import annotations

import io
import json
import logging

import pytest

from tests.conftest import Answer, ScriptedServer, run_python, wait_until
from tests.core.conftest import names
from ts_autotrack import configure, flush, stats, track
from ts_autotrack._core import diagnostics
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.outage import MAX_TOLD, REPEAT, Outage

pytestmark = pytest.mark.usefixtures("acting")


def test_fault_in_delivery_is_reported_and_survived(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the library is counted and logged with a reason, and the next events are delivered."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    configure(endpoint="https://127.0.0.1:1")
    track("e")
    wait_until(lambda: "delivering events failed" in caplog.text, "the report")
    monkeypatch.delenv("HTTPS_PROXY")
    configure(endpoint=server.endpoint)
    assert flush(10)
    assert names(server.items) == ["e"]
    assert "the application was not affected" in caplog.text


def test_faults_are_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A repeated fault is logged once a minute, and its own message cannot break the log."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise LookupError

    monkeypatch.setattr(diagnostics, "reraise", False)
    before = diagnostics.faults.read()
    for _ in range(5):
        diagnostics.fault("testing", UnprintableError())
        diagnostics.report()
    monkeypatch.setattr(diagnostics, "FAULT_INTERVAL", 0.0)
    diagnostics.fault("testing", ValueError("again"))
    diagnostics.report()
    assert diagnostics.faults.read() - before == 6
    assert [record.getMessage() for record in caplog.records] == [
        "ts_autotrack: testing failed (UnprintableError); the application was not affected",
        "ts_autotrack: testing failed (ValueError: again); the application was not affected",
    ]


def test_key_appears_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture, dead_endpoint: str) -> None:
    """No log line at any level, no repr and no exception shows the credentials."""
    caplog.set_level("DEBUG")
    secret = "s3cr3t-key"
    configure(endpoint=dead_endpoint, api_key=secret, auth_token=secret, debug=True)
    track("e")
    assert not flush(0.3)
    assert secret not in repr(client.config)
    assert secret not in caplog.text
    with pytest.raises(ValueError, match="api_key") as error:
        configure(api_key=f"{secret}\n{secret}")
    assert secret not in str(error.value)
    assert json.dumps(stats()._asdict())


def test_no_kind_of_warning_silences_another(caplog: pytest.LogCaptureFixture) -> None:
    """A kind of warning that never repeats itself fills its own bound only, and the last warning says so."""
    for number in range(5_000):
        diagnostics.warn_once(("invalid", number), f"event {number} is invalid")
        if number % 50 == 0:
            diagnostics.report()
    diagnostics.warn_once("queue_full", "the queue is full")
    diagnostics.report()
    texts = [record.getMessage() for record in caplog.records]
    assert sum("is invalid" in text for text in texts) == diagnostics.MAX_KEYS
    assert texts[-2].endswith("further warnings of this kind are not logged")
    assert texts[-1] == "ts_autotrack: the queue is full"


def test_outages_are_told_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """An outage has one warning for each kind of failure and hour, and a line at its end; many are told partly."""
    now = [0.0]
    outage = Outage(lambda: now[0])

    def told() -> list[str]:
        diagnostics.report()
        texts = [record.getMessage().removeprefix("ts_autotrack: ") for record in caplog.records]
        caplog.clear()
        return texts

    for _ in range(5):
        outage.fail("retry", "away")
        outage.fail("unauthorized", "refused")
    assert told() == ["away", "refused"]
    now[0] += 90
    outage.end(1)
    assert told() == ["events are delivered again, after 90.0 s; 1 event waited"]
    outage.fail("retry", "away")
    now[0] += REPEAT
    outage.fail("retry", "still away")
    outage.end(7)
    assert told() == ["away", "still away", f"events are delivered again, after {REPEAT:.1f} s; 7 events waited"]
    for _ in range(100):
        outage.fail("retry", "again")
        outage.end(1)
    assert len(told()) == 2 * MAX_TOLD


def test_outage_names_the_host_and_counts_the_events(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the answer and the host of the endpoint; a second outage is told, too."""
    for status in (503, 503):
        caplog.clear()
        server.script.append(Answer(status, b"maintenance\x1b[2J\nforged line"))
        track("e")
        wait_until(lambda: "events cannot be delivered" in caplog.text, "the warning")
        assert flush(10)
        assert "Answer to /track from 127.0.0.1: 503: maintenance\\x1b[2J\\x0aforged line" in caplog.text
        wait_until(lambda: "events are delivered again" in caplog.text, "the end")
        assert "1 event waited" in caplog.text


def test_refused_item_is_named_without_its_contents(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """The log has the name and the id of a refused event and the server's words, not its properties."""
    server.script.append(Answer(400, b"no such field"))
    track("order_paid", {"card": "4111"})
    assert flush(10)
    wait_until(lambda: "no such field" in caplog.text, "the report")
    assert "the event order_paid for /track with the id" in caplog.text
    assert "4111" not in caplog.text


def test_403_that_others_do_not_get_does_not_blame_the_credentials(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An item that a firewall answers with 403 is found; the warning does not send the operator to the credentials."""
    server.always = lambda request: (
        Answer(403, b"blocked") if any(item["event_name"] == "bad" for item in request.items) else Answer()
    )
    for number in range(20):
        track("bad" if number == 3 else "good")
    assert not flush(5)
    assert stats().delivered == 19
    assert "THRIVESTACK_API_KEY" not in caplog.text


def test_warnings_appear_without_a_valid_event() -> None:
    """A process whose events are all invalid, and which has no worker, logs the reason."""
    code = "import ts_autotrack as ts\nts.track('e', user_id='u', timestamp='yesterday')"
    done = run_python(code, THRIVESTACK_ENDPOINT="http://127.0.0.1:9", TS_AUTOTRACK_EXIT_TIMEOUT="0.1")
    assert "Counted as 'invalid'" in done.stderr


def test_closed_streams_of_handlers_are_left_alone(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A line goes to the handlers that still work; those with a closed stream print no traceback."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    diagnostics.logger.addHandler(handler)
    try:
        diagnostics.log("warning", "first")
        assert stream.getvalue() == "ts_autotrack: first\n"
        stream.close()
        diagnostics.log("warning", "second %d", 2)
        diagnostics.log("debug", "third")
    finally:
        diagnostics.logger.removeHandler(handler)
    assert [record.getMessage() for record in caplog.records] == ["ts_autotrack: first", "ts_autotrack: second 2"]
    assert capfd.readouterr().err == ""


def test_control_characters_are_shown_as_text() -> None:
    """Control characters, C1 and DEL included, cannot forge a log line or control a terminal."""
    assert diagnostics.printable("a\nb\x7f\x9b1m\u2028é") == "a\\x0ab\\x7f\\x9b1m\\x2028é"
