"""The exporter otlp: events of all kinds, settings of OpenTelemetry, and the Collector's answers."""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.conftest import Answer, Request, run_python, wait_until
from tests.core.conftest import account_closes, names
from tests.core.transports.collector import (
    PROTOBUF,
    Collector,
    attributes_of,
    failure,
    partial_success,
    value_of,
)
from ts_autotrack import configure, flush, group, identify, rejected, shutdown, stats, track, track_feature
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack.typing import Stats

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("acting")


def resource_of(collector: Collector) -> dict[str, Any]:
    """Return the attributes of the last request's resource."""
    return {pair.key: value_of(pair.value) for pair in collector.exports[-1].resource_logs[0].resource.attributes}


@track_feature("report_export")
def export_report() -> None:
    """Be a feature."""


def test_events_of_all_kinds_arrive(collector: Collector) -> None:
    """A feature, a custom event, traits of a user and of an account arrive as log records, in their order."""
    export_report()
    track("paid", {"price": Decimal("19.990"), "tags": ["a", None]})
    identify({"plan": "pro"})
    group("account_1", {"seats": 5, "group_type": "Account"})
    assert flush(10)
    assert {request.path for request in collector.requests} == {"/v1/logs"}
    assert [record.event_name for record in collector.records] == ["feature_used", "paid", "identify", "group"]
    feature, paid, identified, grouped = collector.items
    assert feature["user_id"] == "user_1"
    assert feature["context"]["group_id"] == "account_1"
    assert feature["properties"] == {"feature_name": "report_export", "action": "export_report"}
    assert attributes_of(collector.records[0])["feature.name"] == "report_export"
    assert paid["properties"] == {"price": 19.99, "tags": ["a", None]}
    assert identified["traits"] == {"plan": "pro"}
    assert (grouped["group_id"], grouped["traits"]) == ("account_1", {"seats": 5, "group_type": "Account"})
    assert account_closes() == Stats(4, 4, 0, 0, {})
    assert collector.requests[0].headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize("compression", ["gzip", "deflate", "none"])
def test_variables_of_opentelemetry_are_in_force(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    """The standard variables set endpoint, headers, compression and resource. A variable for logs wins."""
    for name, value in {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{collector.endpoint}/custom/path?tenant=1",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-general=1",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "Authorization=Bearer%20the-token==%20, x-tenant = t",
        "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": compression,
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment.name=a%2Cb",
        "OTEL_SERVICE_NAME": "billing",
    }.items():
        monkeypatch.setenv(name, value)
    track("e", {"text": "x" * 1_000})
    assert flush(10)
    (request,) = collector.requests
    assert request.path == "/custom/path?tenant=1"
    assert request.headers["authorization"] == "Bearer the-token=="
    assert request.headers["x-tenant"] == "t"
    assert "x-general" not in request.headers
    assert request.headers.get("content-encoding", "none") == compression
    assert (request.size < 1_000) is (compression != "none")
    assert resource_of(collector) == {"service.name": "billing", "deployment.environment.name": "a,b"}
    assert names(collector.items) == ["e"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "no value,x-a=1,x-b=\u00e9",
            "an entry of OTEL_EXPORTER_OTLP_HEADERS is ignored",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "OTEL_EXPORTER_OTLP_COMPRESSION=zstd is ignored"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc is ignored"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name", "an entry of OTEL_RESOURCE_ATTRIBUTES is ignored"),
    ],
)
def test_broken_variable_is_one_warning(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str,
    message: str,
) -> None:  # fmt: skip
    """A bad header, compression, protocol or resource is ignored with one warning; events arrive all the same."""
    monkeypatch.setenv(name, value)
    track("e")
    assert flush(10)
    assert names(collector.items) == ["e"]
    assert [record.getMessage() for record in caplog.records if message in record.getMessage()] != []
    assert len(caplog.records) == 1
    assert resource_of(collector) == {"service.name": "unknown_service"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317 cannot be used: expected a URL"),
        ({"LOGS_ENDPOINT": "http://u:secret@c"}, "credentials in the URL are not supported; use OTEL_EXPORTER_OTLP_H"),
        (
            {"ENDPOINT": "https://127.0.0.1:9", "CERTIFICATE": "/no/such.pem"},
            "OTEL_EXPORTER_OTLP_CERTIFICATE=/no/such.pem cannot be used: No such file",
        ),
        (
            {"ENDPOINT": "https://127.0.0.1:9", "CLIENT_CERTIFICATE": "/no/such.pem", "CLIENT_KEY": "/no/key.pem"},
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=/no/such.pem with OTEL_EXPORTER_OTLP_CLIENT_KEY=/no/key.pem cannot",
        ),
    ],
)
def test_unusable_address_keeps_the_events(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str],
    words: str,
) -> None:  # fmt: skip
    """With an endpoint or certificate that cannot be used, events wait; one warning names the variable."""
    del collector
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    track("e")
    assert not flush(0.3)
    wait_until(lambda: words in caplog.text, "the warning")
    assert "secret" not in caplog.text
    assert account_closes() == Stats(1, 0, 1, 0, {})


def test_missing_package_is_named(tmp_path: Path) -> None:
    """Without opentelemetry-proto the application runs on, events wait, and one warning names the remedy."""
    code = """
import sys
sys.modules["opentelemetry.proto"] = None
import ts_autotrack
ts_autotrack.track("e", user_id="u")
print(ts_autotrack.flush(1), ts_autotrack.stats().pending)
"""
    done = run_python(code, TS_AUTOTRACK_EXPORTER="otlp", HOME=str(tmp_path))
    assert done.stdout == "False 1\n", done.stderr
    assert done.stderr.count("pip install 'ts_autotrack[otlp]'") == 1


def test_messages_are_imported_with_the_package() -> None:
    """The environment makes the exporter active, so the import of the package loads protobuf, and no thread does."""
    code = """
import sys
import ts_autotrack
print("opentelemetry.proto.logs.v1.logs_pb2" in sys.modules, "opentelemetry.sdk" in sys.modules)
before = set(sys.modules)
ts_autotrack.track("e", user_id="u")
ts_autotrack.flush(2)
print(sorted(name for name in set(sys.modules) - before if name.startswith(("google", "opentelemetry"))))
"""
    done = run_python(code, TS_AUTOTRACK_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout == "True False\n[]\n", done.stderr


def test_own_requests_are_not_traced(collector: Collector) -> None:
    """An application with instrumented HTTP clients sees no span of the exporter."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        track("e")
        assert flush(10)
    finally:
        instrumentor.uninstrument()
    assert names(collector.items) == ["e"]
    assert spans.get_finished_spans() == ()


def reset(_: Request) -> Answer:
    """Close the connection without an answer."""
    raise ConnectionResetError


@pytest.mark.parametrize("answer", [failure(503, "busy"), failure(500, ""), Answer(502, b"bad gateway"), reset])
def test_transient_failures_are_retried(collector: Collector, answer: Any) -> None:
    """5xx and a reset are retried until success, with the same event ids."""
    client.pacing = Pacing(first_backoff=0.01)
    collector.script.extend([answer] * 2)
    track("e")
    assert flush(10)
    assert [request.items for request in collector.requests] == [collector.requests[0].items] * 3
    assert account_closes() == Stats(1, 1, 0, 0, {})


def test_retry_after_is_honoured(collector: Collector) -> None:
    """No request is sent before the Collector's `Retry-After` is over."""
    client.pacing = Pacing(first_backoff=0.01)
    collector.script.append(failure(429, "slow down", **{"retry-after": "1"}))
    track("e")
    assert flush(10)
    assert collector.requests[1].at - collector.requests[0].at >= 1.0


def test_hanging_collector_costs_one_timeout(collector: Collector) -> None:
    """A request ends with the setting REQUEST_TIMEOUT, not with the exporter's own retries, and is tried again."""
    client.pacing = Pacing(first_backoff=0.01)
    gate = threading.Event()
    collector.script.append(Answer(wait=gate))
    configure(request_timeout=0.3)
    track("e")
    assert flush(10)
    gate.set()
    assert 0.25 < collector.requests[1].at - collector.requests[0].at < 5
    assert stats().delivered == 1


def test_hanging_request_ends_with_shutdown(collector: Collector) -> None:
    """`shutdown` ends a request that hangs; a later `configure` delivers the event."""
    gate = threading.Event()
    collector.script.append(Answer(wait=gate))
    configure(request_timeout=60)
    track("e")
    wait_until(lambda: collector.requests, "the request")
    assert not shutdown(0.2)
    configure(exporter="otlp")
    assert flush(10)
    gate.set()
    assert len(collector.requests) == 2


def test_refused_record_is_found(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """A Collector that answers 400 because of one record loses no other; the record is kept with the words."""
    collector.always = lambda request: (
        failure(400, "field 'poison' is unknown") if "poison" in str(request.items) else Answer(200, b"", PROTOBUF)
    )
    for n in range(50):
        track("e", {"n": n} if n != 20 else {"poison": 1})
    assert flush(10)
    assert account_closes() == Stats(50, 49, 0, 1, {})
    (item,) = rejected()
    assert "poison" in item.item
    assert item.reason == "400: field 'poison' is unknown"
    wait_until(lambda: "for good: 400: field 'poison' is unknown" in caplog.text, "the report")


@pytest.mark.parametrize(("status", "names_of"), [(401, "OTEL_EXPORTER_OTLP_HEADERS"), (404, "an OTLP receiver's")])
def test_operator_is_told_of_the_right_variables(
    collector: Collector, caplog: pytest.LogCaptureFixture, status: int, names_of: str
) -> None:
    """Refused credentials and a wrong path keep the events; the advice names OpenTelemetry's variables."""
    collector.always = lambda _: failure(status, "no")
    track("e")
    assert not flush(0.3)
    wait_until(lambda: names_of in caplog.text, "the advice")
    assert "THRIVESTACK" not in caplog.text
    assert stats().pending == 1


def test_redirect_is_no_success(collector: Collector) -> None:
    """A redirect, which the official exporter takes for a success, keeps the events."""
    collector.always = lambda _: Answer(302, b"", {"location": "/login"})
    track("e")
    assert not flush(0.3)
    assert account_closes() == Stats(1, 0, 1, 0, {})


def test_partial_success_counts_as_rejected(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """Records that the Collector leaves out of a batch are rejected, told, and never sent again."""
    gate = threading.Event()
    collector.script.extend([Answer(200, b"", PROTOBUF, wait=gate), partial_success(3, "quota of tenant t")])
    track("e")
    wait_until(lambda: collector.requests, "the first request")
    for _ in range(50):
        track("e")
    gate.set()
    assert flush(10)
    assert [len(request.items) for request in collector.requests] == [1, 50]
    assert account_closes() == Stats(51, 48, 0, 3, {})
    wait_until(lambda: "refuses 3 of 50 events for /track for good" in caplog.text, "the report")
    assert "quota of tenant t" in caplog.text


@pytest.mark.parametrize("refused", [1, 1_000])
def test_partial_success_without_any_record_names_the_item(collector: Collector, refused: int) -> None:
    """A request whose records are all left out is a refusal: the items are kept with the Collector's words."""
    collector.script.append(partial_success(refused, "too old"))
    track("e")
    assert flush(10)
    assert account_closes() == Stats(1, 0, 0, 1, {})
    assert [item.reason for item in rejected()] == ["400: too old"]


@pytest.mark.parametrize("words", ["<nil> tenant", '{"success": false}'])
def test_words_of_a_collector_are_no_page(collector: Collector, words: str) -> None:
    """Records left out of a batch are not sent again, whatever their error message looks like."""
    gate = threading.Event()
    collector.script.extend([Answer(200, b"", PROTOBUF, wait=gate), partial_success(1, words), failure(400, words)])
    track("e")
    wait_until(lambda: collector.requests, "the first request")
    track("e")
    track("e")
    gate.set()
    assert flush(10)
    track("e")
    assert flush(10)
    assert [len(request.items) for request in collector.requests] == [1, 2, 1]
    assert account_closes() == Stats(4, 2, 0, 2, {})


def test_warning_of_the_collector_is_logged(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """A success with words is a warning: the words are logged, and so is an answer that cannot be decoded."""
    collector.script.extend([partial_success(0, "attribute 'x' is deprecated"), Answer(200, b"\xff\xff", PROTOBUF)])
    for _ in range(2):
        track("e")
        assert flush(10)
    wait_until(lambda: "the server warns: attribute 'x' is deprecated" in caplog.text, "the report")
    wait_until(lambda: "the answer is no ExportLogsServiceResponse" in caplog.text, "the report")
    assert account_closes() == Stats(2, 2, 0, 0, {})


def test_many_header_values_are_masked(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first of many headers is as secret as the last."""
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_HEADERS", ",".join(f"x-{number}=Bearer%20secret-{number}" for number in range(10, 30))
    )
    collector.always = lambda _: failure(401, "unknown: secret-10, secret-29.")
    track("e")
    assert not flush(0.3)
    wait_until(lambda: "unknown: ***, ***." in caplog.text, "the report")


def test_header_values_are_never_logged(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A Collector that repeats a header's value in its words gives nothing away."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer secret-token-1")
    collector.always = lambda _: failure(401, "unknown token secret-token-1")
    track("e")
    assert not flush(0.3)
    wait_until(lambda: "unknown token ***" in caplog.text, "the report")
    assert "secret-token-1" not in caplog.text
