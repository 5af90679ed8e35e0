"""The exporters by themselves, with batch and simple processors, and their hand-over to the processors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import _logs, baggage
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

import ts_autotrack
from ts_autotrack import user_context
from ts_autotrack.otel.logs import ThriveStackLogExporter
from ts_autotrack.otel.spans import ThriveStackSpanExporter, ThriveStackSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.otel.conftest import Events

FEATURE = {"feature.name": "export"}
USER = {"user.id": "user_123", "account.id": "account_456"}


def test_an_exporter_sees_attributes(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span of another provider than the global provider has the user in its attributes, or nobody."""
    provider.add_span_processor(BatchSpanProcessor(ThriveStackSpanExporter()))
    tracer = provider.get_tracer("tests")
    tracer.start_span("any", attributes={**USER, **FEATURE}).end()
    with user_context("somebody_else"):
        tracer.start_span("any", attributes=FEATURE).end()
        provider.force_flush()  # in this block, on this thread
    assert [event["user_id"] for event in events()] == ["user_123"]
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_the_first_batch_completes_the_exporter(global_provider: TracerProvider, events: Callable[[], Events]) -> None:
    """From the first batch on, spans have the user who acts where they begin; none counts twice."""
    global_provider.add_span_processor(BatchSpanProcessor(ThriveStackSpanExporter(features={"export": "export"})))
    tracer = global_provider.get_tracer("tests")
    tracer.start_span("export", attributes=USER).end()
    global_provider.force_flush()
    with user_context("user_1"):
        tracer.start_span("export").end()
    global_provider.force_flush()
    assert [event["user_id"] for event in events()] == ["user_123", "user_1"]


def test_a_simple_processor_in_front_takes_no_user(
    global_provider: TracerProvider, events: Callable[[], Events]
) -> None:
    """The exporter sees an ended span before the processor behind it, and leaves the span to the processor."""
    global_provider.add_span_processor(SimpleSpanProcessor(ThriveStackSpanExporter()))
    tracer = global_provider.get_tracer("tests")
    tracer.start_span("any", attributes={**USER, **FEATURE}).end()
    for user in ("user_1", "user_2"):
        with user_context(user):
            tracer.start_span("any", attributes=FEATURE).end()
    assert [event["user_id"] for event in events()] == ["user_123", "user_1", "user_2"]
    assert ts_autotrack.stats().dropped == {}


def test_a_span_that_the_processor_does_not_count_is_the_exporter_s(
    provider: TracerProvider, events: Callable[[], Events]
) -> None:
    """An exporter counts the features of its own options, also beside a processor with other options."""
    provider.add_span_processor(SimpleSpanProcessor(ThriveStackSpanExporter(features={"export": "export"})))
    provider.add_span_processor(ThriveStackSpanProcessor(features={"other": "other"}))
    for name in ("export", "other"):
        provider.get_tracer("tests").start_span(name, attributes=USER).end()
    assert [event["properties"]["feature_name"] for event in events()] == ["export", "other"]


def test_an_odd_span_or_record_costs_its_batch_nothing(events: Callable[[], Events]) -> None:
    """One subject that cannot be examined is left out, and the others of its batch count."""
    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(BatchSpanProcessor(ThriveStackSpanExporter(features={"export": "export"})))
    names: Any = (["no", "text"], "export")
    for name in names:
        spans.get_tracer("tests").start_span(name, attributes=USER).end()
    records = LoggerProvider(resource=Resource({}), shutdown_on_exit=False)
    records.add_log_record_processor(Changing())
    records.add_log_record_processor(BatchLogRecordProcessor(ThriveStackLogExporter()))
    for name in ("odd", "invited"):
        records.get_logger("tests").emit(event_name=name, attributes=USER)
    for provider in (spans, records):
        provider.force_flush()
        provider.shutdown()
    assert [event["event_name"] for event in events()] == ["feature_used", "invited"]


class Changing(LogRecordProcessor):
    """A processor of the application that damages the records named "odd"."""

    def on_emit(self, log_record: Any) -> None:
        """Replace the attributes."""
        if log_record.log_record.event_name == "odd":
            log_record.log_record.attributes = 7

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Do nothing."""
        return timeout_millis >= 0


def test_the_simple_processor_reads_no_settings_in_the_request(global_provider: TracerProvider) -> None:
    """A span that is no feature takes few calls, also behind the simple processor, which exports in the request."""
    global_provider.add_span_processor(SimpleSpanProcessor(ThriveStackSpanExporter(features={"export": "export"})))
    tracer = global_provider.get_tracer("tests")
    tracer.start_span("first").end()
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    former = sys.getprofile()
    sys.setprofile(count)
    try:
        tracer.start_span("any").end()
    finally:
        sys.setprofile(former)
    assert calls < 200


def test_another_provider_s_exporter_is_left_alone(
    global_provider: TracerProvider, events: Callable[[], Events]
) -> None:
    """An exporter of another provider makes no events of the global provider's spans."""
    other = TracerProvider(resource=Resource({}), shutdown_on_exit=False)
    other.add_span_processor(SimpleSpanProcessor(ThriveStackSpanExporter()))
    for provider in (other, global_provider):
        provider.get_tracer("tests").start_span("any", attributes={**USER, **FEATURE}).end()
    assert len(events()) == 1


def test_a_span_counts_once(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """Two processors and two exporters of one provider make one event of a span."""
    for _ in range(2):
        provider.add_span_processor(SimpleSpanProcessor(ThriveStackSpanExporter()))
        provider.add_span_processor(ThriveStackSpanProcessor())
    provider.get_tracer("tests").start_span("any", attributes={**USER, **FEATURE}).end()
    assert len(events()) == 1


@pytest.mark.parametrize("kind", [BatchLogRecordProcessor, SimpleLogRecordProcessor])
def test_log_events_are_exported(
    kind: type[BatchLogRecordProcessor | SimpleLogRecordProcessor],
    events: Callable[[], Events],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attributes of a record name its user. Baggage names the user as long as the record has a context."""
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE", "1")
    ts_autotrack.configure()
    provider = LoggerProvider(resource=Resource({}), shutdown_on_exit=False)
    provider.add_log_record_processor(kind(ThriveStackLogExporter()))
    logger = provider.get_logger("tests")
    with user_context("somebody_else"):
        logger.emit(event_name="invited", attributes=USER)
        logger.emit(event_name="left", context=baggage.set_baggage("user.id", "from_baggage"))
        logger.emit(body="a line")
        provider.force_flush()
    expected = [("invited", "user_123"), ("left", "from_baggage")]
    found = [(event["event_name"], event["user_id"]) for event in events()]
    # The batch processor empties contexts in newer versions of the SDK, and keeps them in 1.39.
    assert found == expected or (kind is BatchLogRecordProcessor and found == expected[:1])


@pytest.mark.parametrize("kind", [BatchLogRecordProcessor, SimpleLogRecordProcessor])
def test_the_first_batch_completes_the_log_exporter(
    kind: type[BatchLogRecordProcessor | SimpleLogRecordProcessor],
    events: Callable[[], Events],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the first batch on, records of the global provider have the user who acts; none counts twice."""
    provider = LoggerProvider(shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry._logs._internal._LOGGER_PROVIDER", provider)
    assert _logs.get_logger_provider() is provider
    provider.add_log_record_processor(kind(ThriveStackLogExporter()))
    logger = provider.get_logger("tests")
    logger.emit(event_name="invited", attributes=USER)
    provider.force_flush()
    with user_context("user_1"):
        logger.emit(event_name="invited")
    provider.force_flush()
    assert [event["user_id"] for event in events()] == ["user_123", "user_1"]
    provider.shutdown()


def test_exporters_flush(events: Callable[[], Events]) -> None:
    """`force_flush` of an exporter delivers; its `shutdown` leaves the library running."""
    for exporter in (ThriveStackSpanExporter(), ThriveStackLogExporter()):
        exporter.shutdown()
        ts_autotrack.track("clicked", user_id="user_1")
        assert exporter.force_flush(5_000)
        assert exporter.force_flush(None)  # as processors of the SDK have it by default
    assert len(events()) == 2
