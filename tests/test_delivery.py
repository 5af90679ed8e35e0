"""From the buffer to the server: batches, order, retries, and an account that closes."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import logging
import re
import threading
import time
from _thread import RLock
from email.utils import format_datetime
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.conftest import DEADLINE, Answer, ScriptedServer, wait_until
from ts_autotrack import (
    clear_user,
    configure,
    flush,
    group,
    identify,
    shutdown,
    stats,
    track,
    track_feature,
    user_context,
)
from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture.buffer import Buffer
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.client import client
from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.answers import action_for
from ts_autotrack._core.delivery.backoff import Backoff, Pacing
from ts_autotrack._core.delivery.clock import Clock
from ts_autotrack._core.delivery.drainer import Drainer
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.delivery.exporter import Exporter
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.identity.scope import Scope
from ts_autotrack._core.transports.http import _seconds
from ts_autotrack.typing import Response, Stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import Inspector, Request


@pytest.fixture(autouse=True)
def acting() -> Iterator[None]:
    """Somebody acts in each of these tests."""
    with user_context("user_1", group_id="account_1"):
        yield


def account_closes() -> Stats:
    """Return the stats after checking their sum."""
    now = stats()
    assert now.accepted == now.delivered + now.pending + now.rejected + sum(now.dropped.values()), now
    return now


def names(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return the events' names."""
    return [item["event_name"] for item in items]


def test_a_burst_arrives_in_full_batches_and_in_order(inspector: Inspector) -> None:
    """Events of a tight loop all arrive, in order, with ids that are all different and timestamps that only grow."""
    for number in range(2_500):
        track("e", {"n": number})
    assert flush(20)
    items = inspector.items()
    assert [item["properties"]["n"] for item in items] == list(range(2_500))
    assert len({item["context"]["event_id"] for item in items}) == 2_500
    stamps = [item["timestamp"] for item in items]
    assert stamps == sorted(set(stamps))
    assert account_closes() == Stats(2_500, 2_500, 0, 0, {})


def test_batches_keep_both_limits(server: ScriptedServer) -> None:
    """No request has more than 1,000 items or 2,000,000 bytes, whatever the mix of sizes."""
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("first")
    wait_until(lambda: server.requests, "the first request")
    for size in [400_000] * 12 + [10] * 3_500 + [1_999_000, 1_999_000]:
        track("e", {"text": "x" * size})
    gate.set()
    assert flush(20)
    assert max(len(request.items) for request in server.requests) == MAX_ITEMS
    assert max(request.size for request in server.requests) <= MAX_BODY
    assert max(request.size for request in server.requests) > MAX_BODY - 5_000
    assert account_closes().delivered == 3_515


def test_an_item_beyond_the_limit_is_dropped_with_a_reason(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An item that alone exceeds a request can never be sent: it is counted and explained, its neighbours arrive."""
    track("before")
    track("huge", {"text": "x" * MAX_BODY})
    track("after")
    assert flush(10)
    assert names(server.items) == ["before", "after"]
    assert account_closes().dropped == {"too_large": 1}
    assert "event 'huge'" in caplog.text
    assert "a request may have 2000000" in caplog.text


def test_endpoints_keep_their_order(server: ScriptedServer) -> None:
    """identify, group and track go to their own paths, in the order of the calls."""
    identify({"user_email": "a@example.com"})
    group("account_9", {"account_name": "Nine"}, group_type="Workspace")
    track("signed_up")
    track("account_created")
    identify({"user_name": "A"}, user_id=7)
    assert flush(10)
    assert [(request.path, len(request.items)) for request in server.requests] == [
        ("/identify", 1),
        ("/group", 1),
        ("/track", 2),
        ("/identify", 1),
    ]
    first, second, third, _, last = server.items
    assert (first["user_id"], first["traits"]) == ("user_1", {"user_email": "a@example.com"})
    assert second["traits"] == {"account_name": "Nine", "group_type": "Workspace"}
    assert (second["group_id"], second["context"]["group_id"], second["user_id"]) == (
        "account_9",
        "account_9",
        "user_1",
    )
    assert third["context"]["group_id"] == "account_1"
    assert last["user_id"] == "7"


def test_both_credentials_and_the_content_type(server: ScriptedServer) -> None:
    """The key goes into `x-api-key`, the token into `Authorization`; the body is JSON and not compressed."""
    configure(api_key="the-key", auth_token="the-token")
    track("e")
    assert flush(10)
    headers = server.requests[0].headers
    assert headers["x-api-key"] == "the-key"
    assert headers["authorization"] == "Bearer the-token"
    assert headers["content-type"] == "application/json"
    assert "content-encoding" not in headers
    assert re.fullmatch(r"ts_autotrack/\d+\.\d+\.\d+", headers["user-agent"])


def test_own_requests_are_neither_logged_nor_instrumented(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that logs httpx's requests and traces them sees its own ones, not ours."""
    caplog.set_level("DEBUG")
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        track("e")
        assert flush(5)
        httpx.post(f"{server.endpoint}/own", json=[])
    finally:
        instrumentor.uninstrument()
    assert [request.path for request in server.requests] == ["/track", "/own"]
    assert len({record.thread for record in caplog.records if record.name.startswith("httpcore")}) == 1
    assert [record.getMessage() for record in caplog.records if record.name == "httpx"] == [
        f'HTTP Request: POST {server.endpoint}/own "HTTP/1.1 200 OK"'
    ]
    assert [(span.attributes or {}).get("http.url") for span in spans.get_finished_spans()] == [
        f"{server.endpoint}/own"
    ]


def test_token_alone(server: ScriptedServer) -> None:
    """A token without a key is enough."""
    shutdown(5)
    client.forget_arguments()
    configure(endpoint=server.endpoint.replace("127.0.0.1", "127.0.0.2"), auth_token="the-token")
    assert client.config is not None
    assert client.config.server.api_key is None
    configure(endpoint=server.endpoint)
    track("e")
    assert flush(10)
    assert server.requests[0].headers["authorization"] == "Bearer the-token"
    assert "x-api-key" not in server.requests[0].headers


@pytest.mark.usefixtures("server")
def test_shutdown_with_no_time_sends_nothing() -> None:
    """A timeout of 0 leaves what is there."""
    track("first")
    assert flush(5)
    configure(flush_interval=60)
    for _ in range(5):
        track("e")
    shutdown(0)
    account = account_closes()
    assert account.delivered + account.pending == 6


def test_item_has_exactly_the_fields_of_the_contract(server: ScriptedServer) -> None:
    """An item has the contract's fields and no other; its timestamp has microseconds and `Z`."""
    before = dt.datetime.now(dt.timezone.utc)
    track("e", {"a": 1})
    assert flush(10)
    after = dt.datetime.now(dt.timezone.utc)
    (item,) = server.items
    assert set(item) == {"event_name", "user_id", "properties", "timestamp", "context"}
    assert set(item["context"]) == {"source", "event_id", "group_id"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", item["timestamp"])
    assert before <= dt.datetime.fromisoformat(item["timestamp"][:-1] + "+00:00") <= after


@pytest.mark.parametrize("answer", [Answer(500), Answer(503), Answer(408), Answer(429), None])
def test_transient_failures_are_retried_with_the_same_ids(
    server: ScriptedServer, answer: Answer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5xx, 408, 429 and a reset are retried until they pass; ids and timestamps stay the same."""
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
    """A server that says when to come back is not asked before, not even by `flush`."""
    in_two = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=2)
    value = "1" if form == "seconds" else format_datetime(in_two, usegmt=True)
    server.script.append(Answer(429, headers={"Retry-After": value}))
    track("e")
    assert flush(10)
    assert server.requests[1].at - server.requests[0].at >= (1.0 if form == "seconds" else 0.5)


def test_flush_does_not_hurry_a_server_that_asked_to_wait(server: ScriptedServer) -> None:
    """`flush` retries at once after a failure, but not against a server's `Retry-After`."""
    server.script.append(Answer(429, headers={"Retry-After": "30"}))
    track("e")
    wait_until(lambda: server.requests, "the first request")
    assert not flush(0.3)
    assert not flush(0.3)
    assert len(server.requests) == 1


def test_unreadable_retry_after_is_no_harm(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `Retry-After` that holds neither seconds nor a date is ignored."""
    client.pacing = Pacing(first_backoff=0.01)
    server.script.append(Answer(503, headers={"Retry-After": "soon"}))
    server.script.append(Answer(503, headers={"Retry-After": "Mon, 01 Jan 2024 00:00:00 +99999999999999"}))
    track("e")
    assert flush(5)


@pytest.mark.parametrize("zone", ["", " -0000", " GMT"])
def test_date_in_retry_after_is_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """A date without a zone is not read as the machine's local time."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    try:
        in_a_minute = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=60)
        seconds = _seconds(f"{in_a_minute:%a, %d %b %Y %H:%M:%S}{zone}")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert seconds is not None
    assert 55 < seconds <= 60


@pytest.mark.parametrize("value", ["0", "-5", "Mon, 01 Jan 2024 00:00:00 GMT"])
def test_retry_after_that_is_over_does_not_hold_flush_up(server: ScriptedServer, value: str) -> None:
    """A server that may be asked again at once is asked by `flush`, however long the backoff has become."""
    server.script.extend([Answer(503, headers={"Retry-After": value})] * 2)
    track("e")
    wait_until(lambda: server.requests, "the first request")
    began = time.monotonic()
    assert flush(30)
    assert time.monotonic() - began < 10


def test_refused_item_is_isolated_and_the_rest_delivered(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One item that the server answers with 400 costs no other: it is found by halves, counted and shown."""

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


def test_too_large_for_the_server_is_split_until_it_fits(server: ScriptedServer) -> None:
    """A server, or a proxy before it, that takes less than the contract says gets smaller requests."""
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
    """Refused credentials and wrong endpoints lose nothing, are said once, and asked again when it is mended."""
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


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response(200), "acknowledge"),
        (Response(202), "acknowledge"),
        (Response(200, content_type="TEXT/HTML; charset=utf-8"), "misconfigured"),
        (Response(200, b"\n<!doctype html>"), "misconfigured"),
        (Response(400, b"<html><center>The plain HTTP request was sent to HTTPS port"), "misconfigured"),
        (Response(422, content_type="text/html"), "misconfigured"),
        (Response(413, content_type="text/html"), "split"),
        (Response(502, content_type="text/html"), "retry"),
        (Response(0), "retry"),
        (Response(408), "retry"),
        (Response(429), "retry"),
        (Response(500), "retry"),
        (Response(599), "retry"),
        (Response(401), "unauthorized"),
        (Response(403), "unauthorized"),
        (Response(400), "split"),
        (Response(413), "split"),
        (Response(422), "split"),
        (Response(301), "misconfigured"),
        (Response(404), "misconfigured"),
    ],
)
def test_each_answer_has_its_treatment(response: Response, expected: str) -> None:
    """The table of answers."""
    assert action_for(response) == expected


def test_any_answer_body_is_no_harm(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A body that is cut short, endless, compressed or echoes the key fills neither memory nor log."""
    configure(api_key="secret-key-1")
    bomb = gzip.compress(bytes(50_000_000))
    server.script.extend(
        [
            Answer(200, bomb, {"content-encoding": "gzip"}),
            Answer(200, b"not gzip", {"content-encoding": "gzip"}),
            Answer(200, b"x" * 5_000_000),
            Answer(200, b"short", {"content-length": "100", "connection": "close"}),
            Answer(422, b"the key secret-key-1 is not allowed to send this"),
            Answer(200, b'{"warnings": ' + b"[" * 50_000, {"set-cookie": "session=1"}),
        ]
    )
    for _ in range(7):
        track("e")
        assert flush(10)
    assert account_closes() == Stats(7, 6, 0, 1, {})
    assert len(server.requests) == 7
    assert not any("cookie" in request.headers for request in server.requests)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    wait_until(lambda: "the key *** is not allowed" in caplog.text, "the report")
    assert "secret-key-1" not in caplog.text


def test_server_that_says_something_new_each_time_fills_no_log(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Fifty texts of a server are shown, then one line says so; what else is to be said still is."""
    server.always = lambda _: Answer(200, json.dumps({"warnings": [f"w{n}" for n in range(200)]}).encode())
    track("e")
    assert flush(5)
    clear_user()
    track("nobody")
    wait_until(lambda: "event 'nobody'" in caplog.text, "the report")
    assert sum("the server" in record.getMessage() for record in caplog.records) == 51


def test_log_handler_that_raises_or_flushes_stops_nothing(server: ScriptedServer) -> None:
    """An application's log handler may raise, track and flush while it handles our own records."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            track("from the handler", user_id="u")
            flush(5)
            shutdown_later.append(record)
            raise LookupError

    shutdown_later: list[logging.LogRecord] = []
    handler = Handler()
    logging.getLogger("ts_autotrack").addHandler(handler)
    try:
        server.script.append(Answer(200, b'{"warnings": ["something"]}'))
        track("e")
        wait_until(lambda: shutdown_later, "the record")
        track("after")
        assert flush(5)
    finally:
        logging.getLogger("ts_autotrack").removeHandler(handler)
    assert names(server.items) == ["e", "after"]
    assert account_closes().dropped == {"suppressed": 1}


def test_log_handler_that_shuts_down(server: ScriptedServer) -> None:
    """Even `shutdown` from a log handler, which runs on the library's own thread, returns and takes effect."""

    class Handler(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            done.append(shutdown(5))

    done: list[bool] = []
    handler = Handler()
    logging.getLogger("ts_autotrack").addHandler(handler)
    try:
        server.script.append(Answer(200, b'{"warnings": ["something"]}'))
        track("e")
        wait_until(lambda: done, "the record")
    finally:
        logging.getLogger("ts_autotrack").removeHandler(handler)
    track("late")
    assert done == [True]
    assert account_closes() == Stats(2, 1, 0, 0, {"shutdown": 1})


def test_flush_under_load_waits_for_its_own_events_only(server: ScriptedServer) -> None:
    """New events that keep coming do not keep a flush from returning; one that gave up leaves nothing behind."""
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


def test_refusal_of_everything_costs_two_requests_an_item(server: ScriptedServer) -> None:
    """A server that refuses each item is asked about twice as often as there are items, not more."""
    server.always = lambda _: Answer(400, b"archived")
    configure(flush_interval=60)
    for _ in range(300):
        track("e")
    assert flush(20)
    assert account_closes().rejected == 300
    assert len(server.requests) < 700


def test_server_warnings_are_logged_once_each(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """Each distinct warning of the server reaches the log once; an answer of another shape is no harm."""
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


def test_first_events_go_out_at_once(server: ScriptedServer) -> None:
    """With the default interval of a second, a developer sees a process's first events within a tenth of one."""
    configure(flush_interval=1.0)
    track("warm")  # the first request loads the HTTP client, which takes about as long again
    wait_until(lambda: server.requests, "the first request")
    delays = []
    for number in range(1, 8):
        sent = time.monotonic()
        track(f"e{number}")
        wait_until(lambda n=number: len(server.items) > n, "the event")  # type: ignore[misc]
        delays.append(server.requests[-1].at - sent)
    assert median(delays) < 0.1


def test_later_events_are_batched_by_the_interval(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first seconds of a process there is at most one batch in an interval, unless a full one waits."""
    client.pacing = Pacing(eager_period=0.0)
    configure(flush_interval=0.4)
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("first")
    wait_until(lambda: server.requests, "the first request")
    track("e")
    gate.set()
    for _ in range(19):
        track("e")
    wait_until(lambda: len(server.items) == 21, "the rest")
    assert server.requests[1].at - server.requests[0].at > 0.3
    assert [len(request.items) for request in server.requests] == [1, 20]
    configure(flush_interval=60)
    for _ in range(3_000):  # some may go out at once, for `configure` wakes the worker; then at least 1,000 wait
        track("e")
    wait_until(lambda: len(server.items) > 1_000, "a full batch")
    assert flush(5)


def test_flush_waits_for_what_was_accepted_before(server: ScriptedServer) -> None:
    """Flush returns True when all is settled, False when its timeout is over, and tells how much is left."""
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
    """A flush that ran out of time names the number of events that wait."""
    configure(endpoint=dead_endpoint, api_key="k")
    for _ in range(3):
        track("e")
    assert not flush(0.3)
    assert "flush(0.3): 3 events were not delivered in time; they stay queued" in caplog.text


def test_shutdown_delivers_then_counts_what_comes_later(server: ScriptedServer) -> None:
    """Shutdown drains; events after it are counted as dropped; it may be called again; configure begins anew."""
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
    """A server that does not answer holds shutdown up for its timeout and no longer."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    track("e")
    wait_until(lambda: server.requests, "the request")
    began = time.monotonic()
    assert not shutdown(0.3)
    assert 0.3 <= time.monotonic() - began < 1.5
    assert "1 events were not delivered in time; they are lost with the process" in caplog.text
    server.always = None
    configure(api_key="again")  # a new worker waits for the old one, which still holds the batch
    track("second")
    gate.set()
    assert flush(10)
    assert account_closes().delivered == 2


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


def test_full_queue_refuses_the_newest_and_counts(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """Past MAX_QUEUE new events are refused and counted; what was there is delivered."""
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    configure(max_queue=10)
    track("first")
    wait_until(lambda: server.requests, "the first request")
    for number in range(50):
        track(f"e{number}")
    gate.set()
    assert flush(5)
    account = account_closes()
    assert account.accepted == 51
    assert account.dropped == {"queue_full": 51 - account.delivered}
    assert names(server.items) == ["first", *(f"e{number}" for number in range(account.delivered - 1))]
    assert 10 <= account.delivered <= 30
    assert "TS_AUTOTRACK_MAX_QUEUE" in caplog.text


def test_account_closes_under_threads(server: ScriptedServer) -> None:
    """Threads that track at the same time lose nothing, and each one's order is kept."""

    @track_feature("f", capture=["thread", "number"])
    def work(thread: int, number: int) -> None:
        """Do nothing."""

    def run(thread: int) -> None:
        with user_context(f"u{thread}", group_id="g"):
            for number in range(500):
                work(thread, number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flush(20)
    assert account_closes() == Stats(4_000, 4_000, 0, 0, {})
    for n in range(8):
        mine = [item for item in server.items if item["user_id"] == f"u{n}"]
        assert [item["properties"]["number"] for item in mine] == list(range(500))
        stamps = [item["timestamp"] for item in mine]
        assert stamps == sorted(set(stamps))


def test_events_wait_for_a_server_that_is_away(dead_endpoint: str) -> None:
    """All of them, whatever the batches are."""
    configure(endpoint=dead_endpoint, api_key="k", flush_interval=0.01)
    for _ in range(5_000):
        track("e")
    assert not flush(0.3)
    assert account_closes() == Stats(5_000, 0, 5_000, 0, {})


class FakeTransport:
    """Answers from a list of statuses, then 200; keeps what it was sent."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.accepted: list[bytes] = []
        self.requests: list[tuple[str, list[bytes]]] = []

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Answer."""
        del timeout
        self.requests.append((path, list(bodies)))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 413 and len(bodies) == 1:
            status = 200
        if any(b"poison" in body for body in bodies):
            status = 400
        if status == 200:
            self.accepted.extend(bodies)
        return Response(status)

    def close(self) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("status", "pauses"),
    [(503, [0.5, 1, 2, 4, 8, 16, 32, 60, 60]), (0, [0.5, 1, 2]), (401, [60, 60]), (302, [60, 60])],
)
def test_pauses_between_attempts(status: int, pauses: list[float]) -> None:
    """They grow while the server is away, up to a minute, and are a minute where only somebody can mend it."""
    backlog = MemoryQueue()
    exporter = Exporter(backlog, Counters(), Backoff(Pacing(), jitter=lambda: 1.0))
    for _ in range(2):
        backlog.put([("/track", b"{}", 1)])
        for pause in pauses:
            exporter.backoff.next_attempt_at = 0.0
            before = time.monotonic()
            exporter.export(FakeTransport([status]), 1.0)
            assert pause <= exporter.backoff.next_attempt_at - before < pause + 0.4
        exporter.backoff.next_attempt_at = 0.0
        exporter.export(FakeTransport([]), 1.0)  # all is forgiven
        assert not backlog.pending


sizes = st.sampled_from([1, 10, 400_000, 1_000_000, 1_999_990])
item_kinds = st.tuples(st.sampled_from(["/track", "/identify"]), sizes, st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(item_kinds, max_size=25), st.lists(st.sampled_from([200, 413, 429, 500, 0, 401]), max_size=8))
def test_any_history_keeps_limits_order_and_account(kinds: list[tuple[str, int, bool]], statuses: list[int]) -> None:
    """Whatever the items and the answers: limits hold, order is kept, nothing is lost, only poison is rejected."""
    items = [
        (path, (b"poison" if poison else b"") + str(n).encode() + b"x" * (size - 10), n)
        for n, (path, size, poison) in enumerate(kinds)
    ]
    backlog, counts, transport = MemoryQueue(), Counters(), FakeTransport(statuses)
    backlog.put(items)
    exporter = Exporter(backlog, counts, Backoff(Pacing(), jitter=lambda: 0.0))
    for _ in range(200):
        exporter.export(transport, 1.0)
        exporter.backoff.next_attempt_at = 0.0
        if not backlog.pending:
            break
    clean = [body for _, body, _ in items if b"poison" not in body]
    assert transport.accepted == clean
    assert (counts.delivered, counts.rejected) == (len(clean), len(items) - len(clean))
    for path, bodies in transport.requests:
        assert len(bodies) <= MAX_ITEMS
        assert len(bodies) == 1 or sum(map(len, bodies)) + len(bodies) + 1 <= MAX_BODY
        assert {where for where, body, _ in items if body in bodies} == {path}


def test_what_has_ended_takes_nothing_more() -> None:
    """A thread of a worker that has ended leaves the buffer to the next worker."""
    buffer, counts = Buffer(), Counters()
    drainer = Drainer(buffer, Encoder(counts), MemoryQueue(), counts, RLock())
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 1, None))
    assert drainer.drain()
    assert (drainer.queue.pending, len(buffer.records)) == (1, 0)
    assert len(drainer.close()) == 1
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 2, None))
    assert not drainer.drain()
    assert (counts.taken, len(buffer.records)) == (1, 1)


def stamp(clock: Clock, user_id: str, microseconds: int) -> str:
    """Return the timestamp of an event."""
    fraction = clock.advance(clock.user(user_id), microseconds * 1_000)
    return f"{clock.text.decode()}{fraction:06d}Z"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5_000_000)), max_size=60))
def test_timestamps_of_a_user_only_grow(moments: list[tuple[str, int]]) -> None:
    """Whatever the clock does, a user's timestamps are all different and in order, and stay near the clock."""
    clock, last = Clock(), {"a": "", "b": "", "c": ""}
    latest = 0
    for user, microseconds in moments:
        latest = max(latest, microseconds)
        text = stamp(clock, user, microseconds)
        assert text > last[user]
        last[user] = text
        second = float(text[17:26])
        assert second * 1_000_000 <= latest + 1_100_000


def test_timestamps_of_a_handler_are_a_millisecond_apart_until_a_second_ahead() -> None:
    """The vendor asks for 1 ms between events; a tight loop for one user does not run into the future."""
    clock = Clock()
    texts = [stamp(clock, "u", 0) for _ in range(5_000)]
    assert texts[:3] == ["1970-01-01T00:00:00.000000Z"[:20] + f"{n:06d}Z" for n in (1_000, 2_000, 3_000)]
    assert texts[-1] < "1970-01-01T00:00:01.01"
    assert texts == sorted(set(texts))
    for n in range(25_000):
        stamp(clock, f"other{n}", 0)
    assert len(clock._users) + len(clock._older_users) <= 20_001


def test_fault_in_delivery_is_reported_and_survived(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours is counted and logged with a reason, and the next events are delivered."""
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
    """The same fault is logged once a minute however often it happens, and its own message cannot break the log."""

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
    """The credentials are in no log line at any level, no repr and no exception."""
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
