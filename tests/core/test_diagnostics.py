"""Faults of the library are reported and survived; credentials are never shown."""

from __future__ import annotations

import html
import io
import json
import logging
import logging.handlers
import socket
import threading
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Answer, ScriptedServer, run_python, wait_until
from tests.core.conftest import names
from ts_autotrack import configure, flush, stats, track
from ts_autotrack._core import diagnostics
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.outage import MAX_TOLD, REPEAT, Outage
from ts_autotrack._core.redaction import mask, mask_url, printable, printable_json, protect

pytestmark = pytest.mark.usefixtures("acting")


def test_fault_in_delivery_is_reported_and_survived(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the library is counted and logged with a reason, and the next events are delivered."""

    def refuse(_: object) -> None:
        raise LookupError

    monkeypatch.setattr(diagnostics, "reraise", False)
    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger("httpx"), "addFilter", refuse)  # a logger class of the application
        configure(flush_interval=0.04)
        track("e")
        wait_until(lambda: "delivering events failed" in caplog.text, "the report")
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


def test_key_in_a_malformed_answer_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that echoes the request's headers in place of a header shows the key in no log line."""
    key = "ts_live_0123456789abcdef"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo() -> None:
            client, _ = listener.accept()
            with client:
                head = client.recv(65_536).partition(b"\r\n\r\n")[0]
                client.sendall(b"HTTP/1.1 403 Forbidden\r\n" + head.replace(b"\r\n", b" ") + b"\r\n\r\n")

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        configure(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}", api_key=key)
        track("e")
        wait_until(lambda: "x-api-key: ***" in caplog.text, "the warning")
        thread.join()
    assert key not in caplog.text


def test_words_of_a_server_stay_in_their_line(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server's words forge no log line and send no command to a terminal."""
    words = "oops\n2026-01-01 CRITICAL root: forged\x1b[31m \x9b2J \x7f"
    server.script.append(Answer(503, words.encode()))
    track("e")
    assert flush(10)
    (line,) = [record.getMessage() for record in caplog.records if "oops" in record.getMessage()]
    assert line.isprintable()
    assert r"oops\n2026-01-01 CRITICAL root: forged\x1b[31m \x9b2J \x7f" in line


KEY = "abc/def+0123<456>&'789/xyz=="


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY.upper(),
        KEY.replace("/", "\\/"),
        json.dumps(json.dumps(KEY.replace("/", "\\/"))),
        "".join(f"\\u{ord(char):04X}" for char in KEY),
        quote(KEY),
        quote(KEY, safe=""),
        quote(quote(KEY, safe="")).lower(),
        html.escape(KEY),
        repr(KEY.encode()),
    ],
)
def test_credential_is_masked_in_any_spelling(spelled: str) -> None:
    """A credential is masked as it is, and as JSON, URLs, HTML and Python spell it."""
    protect(KEY)
    shown = mask(f"before {spelled} after")
    assert "***" in shown
    assert "0123" not in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")


def test_short_text_is_no_secret() -> None:
    """A key of a few characters, as tests and the inspector use them, is masked nowhere."""
    protect("test")
    assert mask("a test") == "a test"


@given(st.text())
def test_printable_text_is_one_line(text: str) -> None:
    """Any text becomes a line of printable characters; a printable text stays as it is."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.text(), max_size=3))
def test_printable_json_keeps_its_value(value: dict[str, str]) -> None:
    """JSON without control characters has the same value, for any text."""
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:pa/ss@proxy:3128", "http://***@proxy:3128"),
        ("user:pass@proxy", "***@proxy"),
        ("https://h/api?key=secret#x", "https://h/api?***"),
        ("https://h/api", "https://h/api"),
    ],
)
def test_credentials_in_a_url_are_masked(url: str, shown: str) -> None:
    """Messages show a URL without user, password, query and fragment."""
    assert mask_url(url) == shown


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
        assert "Answer to /track from 127.0.0.1: 503: maintenance\\x1b[2J\\nforged line" in caplog.text
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


@pytest.mark.parametrize("indirect", [False, True])
def test_closed_streams_of_handlers_are_left_alone(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, *, indirect: bool
) -> None:
    """A line goes to the handlers that still work; handlers with a closed stream print no traceback."""
    stream = io.StringIO()
    handler: logging.Handler = logging.StreamHandler(stream)
    if indirect:
        handler = logging.handlers.MemoryHandler(1, target=handler)
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
