"""Log events to events: names, users, properties, and that none is lost."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry._logs import LogRecord
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

import ts_autotrack
from ts_autotrack import suppress, user_context
from ts_autotrack.otel._events import MAX_KEPT, Made
from ts_autotrack.otel.logs import ThriveStackLogExporter, ThriveStackLogRecordProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry._logs import Logger

    from tests.otel.conftest import Events


def logger_of(**options: Any) -> Logger:
    """Return a logger whose log events become events."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(ThriveStackLogRecordProcessor(**options))
    return provider.get_logger("tests")


def test_log_events_become_events(events: Callable[[], Events]) -> None:
    """A record with an event name is an event of this name; a record without one is left alone."""
    logger = logger_of()
    logger.emit(
        event_name="invited", attributes={"user.id": "u", "tenant.id": "t", "feature.name": "invites", "role": "x"}
    )
    logger.emit(body="a line", attributes={"user.id": "u"})
    (event,) = events()
    assert (event["event_name"], event["user_id"], event["context"]["group_id"]) == ("invited", "u", "t")
    assert event["properties"] == {"feature_name": "invites"}
    assert ts_autotrack.stats().accepted == 1


def test_the_acting_user_counts(events: Callable[[], Events]) -> None:
    """The user of the block around `emit` counts, and `suppress` holds."""
    logger = logger_of()
    with user_context("user_1", group_id="account_1"):
        logger.emit(event_name="invited")
        with suppress():
            logger.emit(event_name="invited")
    logger.emit(event_name="invited")
    assert [event["user_id"] for event in events()] == ["user_1"]
    assert ts_autotrack.stats().dropped == {"suppressed": 1, "unattributed": 1}


@pytest.mark.parametrize(("chosen", "count"), [("", 0), ("1", 2)])
def test_baggage_counts_only_if_chosen(
    events: Callable[[], Events], monkeypatch: pytest.MonkeyPatch, chosen: str, count: int
) -> None:
    """Baggage of the record's own context, or of the current one, names the user with BAGGAGE=1 only."""
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE", chosen)
    ts_autotrack.configure()
    logger = logger_of()
    carried = baggage.set_baggage("enduser.id", "from_baggage")
    logger.emit(event_name="invited", context=carried)
    token = context.attach(carried)
    logger.emit(event_name="invited")
    context.detach(token)
    assert [event["user_id"] for event in events()] == ["from_baggage"] * count


def test_allowed_attributes_and_fields_become_properties(events: Callable[[], Events]) -> None:
    """The option names attributes, fields of the body, or the body."""
    logger = logger_of(properties=["role", "count", "body"])
    with user_context("user_1"):
        logger.emit(event_name="first", attributes={"role": "admin", "other": 1}, body={"count": 2, "secret": 3})
        logger.emit(event_name="second", body="text")
    first, second = (event["properties"] for event in events())
    assert first == {"role": "admin", "count": 2, "body": {"count": 2, "secret": 3}}
    assert second == {"body": "text"}


def test_the_span_s_ids_travel(events: Callable[[], Events]) -> None:
    """The trace id and span id of the record become the event's."""
    with TracerProvider(shutdown_on_exit=False).get_tracer("tests").start_as_current_span("any") as span:
        logger_of().emit(event_name="invited", attributes={"user.id": "u"})
    (event,) = events()
    assert event["context"]["span_id"] == trace.format_span_id(span.get_span_context().span_id)


def test_past_records_keep_their_time(events: Callable[[], Events]) -> None:
    """A record with a timestamp of the past has it in the event."""
    logger_of().emit(event_name="invited", attributes={"user.id": "u"}, timestamp=1_729_439_496_514_000_000)
    assert events()[0]["timestamp"] == "2024-10-20T15:51:36.514000Z"


@pytest.mark.usefixtures("inspector")
def test_none_is_lost() -> None:
    """20,000 records in a row arrive, each once: the batch processor of the SDK would drop most of them."""
    logger = logger_of()
    with user_context("user_1"):
        for _ in range(20_000):
            logger.emit(event_name="invited")
    assert ts_autotrack.flush(60)
    stats = ts_autotrack.stats()
    assert (stats.accepted, stats.delivered, stats.dropped) == (20_000, 20_000, {})


def test_shutdown_ends_the_processor_only(events: Callable[[], Events]) -> None:
    """After the shutdown records make no events, and the library goes on."""
    processor = ThriveStackLogRecordProcessor()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(processor)
    assert provider.force_flush(5_000)
    provider.shutdown()
    provider.get_logger("tests").emit(event_name="invited", attributes={"user.id": "u"})
    assert events() == []


@pytest.mark.parametrize("attributes", [{"user.id": "u"}, None])
def test_attributes_of_another_processor_count(
    events: Callable[[], Events], attributes: dict[str, str] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A processor in front may replace a record's attributes by a dict or None; each record still counts once."""

    class Replace(LogRecordProcessor):
        def on_emit(self, log_record: Any) -> None:
            log_record.log_record.attributes = None if attributes is None else {**attributes}

        def shutdown(self) -> None:
            """Do nothing."""

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return timeout_millis > 0

    provider = LoggerProvider(resource=Resource({}), shutdown_on_exit=False)
    provider.add_log_record_processor(Replace())
    provider.add_log_record_processor(BatchLogRecordProcessor(ThriveStackLogExporter()))
    provider.add_log_record_processor(ThriveStackLogRecordProcessor())
    with user_context("u"):
        for number in range(3):
            provider.get_logger("tests").emit(event_name=f"e{number}")
    provider.force_flush()
    assert [event["event_name"] for event in events()] == ["e0", "e1", "e2"]
    assert "please report this" not in caplog.text


def test_dicts_are_not_kept_without_end() -> None:
    """Of subjects without weak references the last ones are kept only."""
    made = Made()
    subjects = [{"number": number} for number in range(MAX_KEPT + 2)]
    for subject in subjects:
        made.add(subject)
    assert [subject in made for subject in (*subjects[:3], subjects[-1])] == [False, False, True, True]


def test_an_id_that_may_be_cut_is_nobody(events: Callable[[], Events], caplog: pytest.LogCaptureFixture) -> None:
    """Ids as long as the SDK's limit for attributes may be cut: they name neither a user nor an account."""
    processor: Any = ThriveStackLogRecordProcessor()
    for given in ("user_1", "user_12", "user_123"):
        attributes = BoundedAttributes(attributes={"user.id": given, "group.id": "account_1"}, max_value_len=7)
        record = LogRecord(event_name="invited", attributes=attributes)
        with user_context("somebody_else", group_id="account_2"):
            processor.on_emit(SimpleNamespace(log_record=record))
    assert [(event["user_id"], event["context"].get("group_id")) for event in events()] == [("user_1", None)]
    assert ts_autotrack.stats().dropped == {"unattributed": 2}
    assert "the attribute user.id is ignored: it has the 7 characters" in caplog.text


def test_broken_records_do_no_harm(events: Callable[[], Events], caplog: pytest.LogCaptureFixture) -> None:
    """Names and attributes of wrong types reach the application in no way."""
    logger: Any = logger_of()
    with caplog.at_level(logging.WARNING):
        logger.emit(event_name=7, attributes={"user.id": "u"})
        logger.emit(event_name="invited", attributes={"user.id": ["u"]})
    assert events() == []
    assert ts_autotrack.stats().dropped == {"invalid": 1, "unattributed": 1}
