"""The HTTP transport: headers, privacy of own requests, and bodies and dates of answers."""

from __future__ import annotations

import datetime as dt
import gzip
import re
import time

import httpx
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.conftest import Answer, ScriptedServer, wait_until
from tests.core.conftest import account_closes
from ts_autotrack import configure, flush, shutdown, track
from ts_autotrack._core.client import client
from ts_autotrack._core.transports.http import _seconds
from ts_autotrack.typing import Stats

pytestmark = pytest.mark.usefixtures("acting")


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


def test_own_requests_are_neither_logged_nor_instrumented(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An application with logging and tracing of httpx sees its own requests, not the library's."""
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


def test_any_answer_body_is_no_harm(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """A truncated, endless, compressed or key-echoing body fills neither memory nor log."""
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


@pytest.mark.parametrize("zone", ["", " -0000", " GMT"])
def test_date_in_retry_after_is_utc(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    """A date without a zone is read as UTC, not as the machine's local time."""
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
