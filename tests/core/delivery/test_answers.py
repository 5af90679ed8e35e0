"""Answers of the server: retries, pauses, refusals, warnings."""

from __future__ import annotations

import datetime as dt
import json
import time
from email.utils import format_datetime
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, ScriptedServer, wait_until
from tests.core.conftest import account_closes, names
from ts_autotrack import clear_user, configure, flush, rejected, track
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack.typing import Stats

if TYPE_CHECKING:
    from tests.conftest import Request

pytestmark = pytest.mark.usefixtures("acting")


@pytest.mark.parametrize("answer", [Answer(500), Answer(503), Answer(408), Answer(429), None])
def test_transient_failures_are_retried_with_the_same_ids(server: ScriptedServer, answer: Answer | None) -> None:
    """5xx, 408, 429 and a reset are retried until success; ids and timestamps stay the same."""
    client.pacing = Pacing(first_backoff=0.01)

    def reset(_: Request) -> Answer:
        raise ConnectionResetError

    server.script.extend([answer or reset] * 2)
    track("e")
    assert flush(10)
    assert len(server.requests) == 3
    assert [request.items for request in server.requests] == [server.requests[0].items] * 3
    assert account_closes() == Stats(1, 1, 0, 0, {})


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server: ScriptedServer, form: str) -> None:
    """Nothing, not even `flush`, sends a request before a server's `Retry-After` is over."""
    in_two = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=2)
    value = "1" if form == "seconds" else format_datetime(in_two, usegmt=True)
    server.script.append(Answer(429, headers={"Retry-After": value}))
    track("e")
    assert flush(10)
    assert server.requests[1].at - server.requests[0].at >= (1.0 if form == "seconds" else 0.5)


def test_flush_does_not_hurry_a_server_that_asked_to_wait(server: ScriptedServer) -> None:
    """`flush` retries at once after a failure, but not before a server's `Retry-After` is over."""
    server.script.append(Answer(429, headers={"Retry-After": "30"}))
    track("e")
    wait_until(lambda: server.requests, "the first request")
    assert not flush(0.3)
    assert not flush(0.3)
    assert len(server.requests) == 1


def test_unreadable_retry_after_is_no_harm(server: ScriptedServer) -> None:
    """A `Retry-After` with neither seconds nor a date is ignored."""
    client.pacing = Pacing(first_backoff=0.01)
    server.script.append(Answer(503, headers={"Retry-After": "soon"}))
    server.script.append(Answer(503, headers={"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}))
    track("e")
    assert flush(5)


@pytest.mark.parametrize("value", ["0", "-5", "Mon, 01 Jan 2024 00:00:00 GMT"])
def test_retry_after_that_is_over_does_not_hold_flush_up(server: ScriptedServer, value: str) -> None:
    """A `Retry-After` of the past lets `flush` retry at once, after a backoff of any length."""
    server.script.extend([Answer(503, headers={"Retry-After": value})] * 2)
    track("e")
    wait_until(lambda: server.requests, "the first request")
    began = time.monotonic()
    assert flush(30)
    assert time.monotonic() - began < 10


def test_refused_item_is_isolated_and_the_rest_delivered(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An item answered with 400 costs no other item: halving finds the bad item, which is counted and shown."""

    def strict(request: Request) -> Answer:
        bad = [item for item in request.items if item["event_name"] == "bad"]
        return Answer(400, b'{"message": "item: field user_id"}') if bad else Answer()

    server.always = strict
    for number in range(200):
        track("bad" if number in (0, 77, 199) else f"e{number}")
    assert flush(20)
    good = [name for request in server.requests for name in names(request.items) if "bad" not in names(request.items)]
    assert good == [f"e{number}" for number in range(200) if number not in (0, 77, 199)]
    assert account_closes() == Stats(200, 197, 0, 3, {})
    assert len(server.requests) < 60
    wait_until(lambda: "item: field user_id" in caplog.text, "the report")


def test_refusal_of_everything_is_an_outage(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that refuses every item gets few requests: after twenty refused items the rest waits for an operator."""
    server.always = lambda _: Answer(400, b"archived")
    for _ in range(3_000):
        track("e")
    wait_until(lambda: "the server refuses all events" in caplog.text, "the report")
    assert not flush(2)
    account = account_closes()
    assert account.rejected == 20
    assert len(rejected()) == 20
    assert len(server.requests) < 70
    server.always = None
    assert flush(20)
    assert account_closes() == Stats(3_000, 2_980, 0, 20, {})


def test_too_large_for_the_server_is_split_until_it_fits(server: ScriptedServer) -> None:
    """A server or proxy with a limit below the contract's gets smaller requests."""
    server.always = lambda request: Answer(413) if len(request.items) > 3 else Answer()
    for _ in range(20):
        track("e")
    assert flush(10)
    assert account_closes() == Stats(20, 20, 0, 0, {})


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (Answer(401), "Check THRIVESTACK_API_KEY"),
        (Answer(403), "Check THRIVESTACK_API_KEY"),
        (Answer(404), "Check THRIVESTACK_ENDPOINT"),
        (Answer(302, headers={"location": "http://127.0.0.1:1/login"}), "Check THRIVESTACK_ENDPOINT"),
        (Answer(200, b"<html>", headers={"content-type": "text/html"}), "Check THRIVESTACK_ENDPOINT"),
    ],
)
def test_what_an_operator_must_mend_keeps_the_events(
    server: ScriptedServer, answer: Answer, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused credentials and wrong endpoints lose no event, are reported once, and are retried when the settings
    change.
    """
    server.script.extend([answer, answer])
    track("e")
    wait_until(lambda: server.requests, "the first request")
    assert not flush(0.2)
    assert account_closes().pending == 1
    configure(api_key="mended")
    assert flush(5)
    assert account_closes() == Stats(1, 1, 0, 0, {})
    assert server.requests[-1].headers["x-api-key"] == "mended"
    assert caplog.text.count(advice) == 1


def test_server_warnings_are_logged_once_each(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """Each distinct warning of the server reaches the log once; an answer of another shape does no harm."""
    bodies = [
        b'{"warnings": ["Field x is missing", "second"]}',
        b'{"warnings": ["Field x is missing"]}',
        b'{"warnings": "one text"}',
        b'{"warnings": null}',
        b'["warnings", "of another shape", {"warnings": 1}]',
        b'{"warnings": [broken',
    ]
    server.script.extend(Answer(200, body) for body in bodies)
    for _ in bodies:
        track("e")
        assert flush(5)
    assert [r.getMessage().removeprefix("ts_autotrack: the server warns: ") for r in caplog.records] == [
        "Field x is missing",
        "second",
        "one text",
    ]


def test_server_that_says_something_new_each_time_fills_no_log(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Fifty texts of a server are logged, then a line says so; other messages are still logged."""
    server.always = lambda _: Answer(200, json.dumps({"warnings": [f"w{n}" for n in range(200)]}).encode())
    track("e")
    assert flush(5)
    clear_user()
    track("nobody")
    wait_until(lambda: "event 'nobody'" in caplog.text, "the report")
    assert sum("the server" in record.getMessage() for record in caplog.records) == 51


def test_events_wait_for_a_server_that_is_away(dead_endpoint: str) -> None:
    """All events wait for an unreachable server, in any number of batches."""
    configure(endpoint=dead_endpoint, api_key="k", flush_interval=0.01)
    for _ in range(5_000):
        track("e")
    assert not flush(0.3)
    assert account_closes() == Stats(5_000, 0, 5_000, 0, {})
