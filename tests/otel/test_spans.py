"""Spans to events: features, users, properties and trust."""

from __future__ import annotations

import gc
import sys
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

import ts_autotrack
from ts_autotrack import bind_user, request_scope, suppress, user_context
from ts_autotrack.otel.spans import ThriveStackSpanExporter, ThriveStackSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.otel.conftest import Events

FEATURE = {"feature.name": "export"}
ROUTES = {"GET /reports/{id}": "report_view", "* /files/{path}": "file_view", "export-report": "report_export"}
USER = {"user.id": "user_123", "account.id": "account_456"}


def tracer_of(provider: TracerProvider, **options: Any) -> trace.Tracer:
    """Return a tracer whose spans become events."""
    provider.add_span_processor(ThriveStackSpanProcessor(**options))
    return provider.get_tracer("tests")


def run(tracer: trace.Tracer, name: str, kind: SpanKind = SpanKind.INTERNAL, **attributes: Any) -> None:
    """Make a span of a known user. Double underscores stand for dots."""
    own = {key.replace("__", "."): value for key, value in attributes.items()}
    tracer.start_span(name, kind=kind, attributes={**USER, **own}).end()


@pytest.mark.parametrize("name", ["", " ", 7, True, ["export"]])
def test_only_a_text_names_a_feature(provider: TracerProvider, events: Callable[[], Events], name: Any) -> None:
    """A span whose `feature.name` is no text, or empty, is no use of a feature; its name still can be one."""
    tracer = tracer_of(provider, features=ROUTES)
    run(tracer, "any", feature__name=name)
    run(tracer, "export-report", feature__name=name)
    assert [event["properties"]["feature_name"] for event in events()] == ["report_export"]


def test_a_warning_names_the_place_of_a_span_without_a_user(
    provider: TracerProvider, events: Callable[[], Events], caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names the line of the application at which the span ended."""
    tracer = tracer_of(provider)
    with tracer.start_as_current_span("any", attributes=FEATURE):
        pass
    assert events() == []
    assert f"dropped event 'feature_used' ({__name__}, line " in caplog.text


def test_an_attribute_names_the_feature(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span with `feature.name` is an event of the user in its attributes, with the ids of the span."""
    tracer = tracer_of(provider)
    with tracer.start_as_current_span(
        "any", attributes={**USER, **FEATURE, "feature.type": "core", "secret": 1}
    ) as span:
        pass
    (event,) = events()
    ids = span.get_span_context()
    assert (event["event_name"], event["user_id"]) == ("feature_used", "user_123")
    assert event["properties"] == {"feature_name": "export", "feature_type": "core"}
    assert event["context"]["group_id"] == "account_456"
    assert event["context"]["trace_id"] == trace.format_trace_id(ids.trace_id)
    assert event["context"]["span_id"] == trace.format_span_id(ids.span_id)


def test_rules_name_features(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """Names match spans of any kind; routes match server spans by method and route, or else by name."""
    tracer = tracer_of(provider, features=ROUTES)
    run(tracer, "export-report")
    run(tracer, "/reports", SpanKind.SERVER, http__route="/reports/{id}", http__request__method="GET")
    run(tracer, "GET reports", SpanKind.SERVER, http__route="reports/{id}", http__method="get")
    run(tracer, "GET /reports/{id}", SpanKind.SERVER)
    run(tracer, "HTTP", SpanKind.SERVER, http__route="/files/{path}", http__request__method="PUT")
    assert [event["properties"] for event in events()] == [
        {"feature_name": "report_export", "action": "export-report"},
        *[{"feature_name": "report_view", "action": "GET /reports/{id}"}] * 3,
        {"feature_name": "file_view", "action": "* /files/{path}"},
    ]


def test_other_spans_are_no_features(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """Other methods, routes and names, and spans of clients with the same route, make no event."""
    tracer = tracer_of(provider, features=ROUTES)
    run(tracer, "POST", SpanKind.SERVER, http__route="/reports/{id}", http__request__method="POST")
    run(tracer, "GET", SpanKind.SERVER, http__route="/other", http__request__method="GET")
    run(tracer, "GET /reports/{id}", SpanKind.CLIENT, http__route="/reports/{id}", http__request__method="GET")
    run(tracer, "GET /reports/{id}", SpanKind.INTERNAL)
    run(tracer, "unnamed")
    assert events() == []
    assert ts_autotrack.stats().accepted == 0


def test_failed_spans_do_not_count_unless_asked(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span with an error, and a server span with a status of 400 or more, counts with `errors` only."""

    def fail(tracer: trace.Tracer) -> None:
        run(tracer, "GET /reports/{id}", SpanKind.SERVER, http__response__status_code=404)
        with tracer.start_as_current_span("any", attributes={**USER, **FEATURE}) as span:
            span.set_status(Status(StatusCode.ERROR))
        with pytest.raises(LookupError), tracer.start_as_current_span("any", attributes={**USER, **FEATURE}):
            raise LookupError

    tracer = tracer_of(provider, features=ROUTES)
    fail(tracer)
    assert events() == []
    asking = tracer_of(provider, features=ROUTES, errors=True)
    fail(asking)
    run(asking, "export-report")
    # The first processor sees the last span, too, and has made its event.
    assert [event["properties"].get("outcome") for event in events()] == ["error", "error", "error", None]


def test_allowed_attributes_become_properties(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """Attributes named by the option travel, under their own names; no others do."""
    tracer = tracer_of(provider, properties=["format", "pages", "absent"])
    run(tracer, "any", feature__name="export", format="pdf", pages=(1, 2), url__full="https://example.com/?token=1")
    (event,) = events()
    assert event["properties"] == {"feature_name": "export", "format": "pdf", "pages": [1, 2]}


def test_the_user_acts_where_the_span_begins(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """The user of the block around the beginning counts, whoever acts where the span ends."""
    tracer = tracer_of(provider)
    with user_context("first", group_id="account_1"):
        span = tracer.start_span("any", attributes=FEATURE)
    with user_context("second", group_id="account_2"):
        thread = threading.Thread(target=span.end)
        thread.start()
        thread.join()
        tracer.start_span("any", attributes={**FEATURE, "user.id": "third"}).end()
    seen = [(event["user_id"], event["context"].get("group_id")) for event in events()]
    assert seen == [("first", "account_1"), ("third", None)]


def test_a_request_s_user_may_become_known_later(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span that begins in a request scope belongs to the user whom the request binds."""
    tracer = tracer_of(provider)
    with request_scope(), tracer.start_as_current_span("any", attributes=FEATURE):
        bind_user("user_1")
    assert [event["user_id"] for event in events()] == ["user_1"]


def test_nobody_is_credited_without_a_user(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span without a user is counted as unattributed, and a span inside `suppress` as suppressed."""
    tracer = tracer_of(provider)
    tracer.start_span("any", attributes=FEATURE).end()
    with suppress():
        run(tracer, "any", feature__name="export")
    assert events() == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1, "suppressed": 1}


@pytest.mark.parametrize(("chosen", "user"), [("", None), ("1", "from_baggage"), ("0", None)])
def test_baggage_counts_only_if_chosen(
    provider: TracerProvider,
    events: Callable[[], Events],
    monkeypatch: pytest.MonkeyPatch,
    chosen: str,
    user: str | None,
) -> None:
    """Baggage at the span's beginning, in the given or the current context, names the user with BAGGAGE=1 only."""
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE", chosen)
    ts_autotrack.configure()
    tracer = tracer_of(provider)
    carried = baggage.set_baggage("user.id", "from_baggage")
    tracer.start_span("any", context=carried, attributes=FEATURE).end()
    token = context.attach(carried)
    span = tracer.start_span("any", attributes=FEATURE)
    context.detach(token)
    span.end()
    found = events()
    assert [event["user_id"] for event in found] == ([user] * 2 if user else [])
    assert all(event["context"]["identity_source"] == "baggage" for event in found)


def test_the_account_of_another_user_s_baggage_stays_out(
    provider: TracerProvider, events: Callable[[], Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user in the attributes takes no account from the baggage of another user."""
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE", "1")
    ts_autotrack.configure()
    tracer = tracer_of(provider)
    carried = baggage.set_baggage("user.id", "other", baggage.set_baggage("account.id", "account_of_other"))
    tracer.start_span("any", context=carried, attributes={**FEATURE, "user.id": "user_1"}).end()
    (event,) = events()
    assert event["user_id"] == "user_1"
    assert "group_id" not in event["context"]


def test_past_spans_keep_their_time(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """The event of a span that ended long ago has the time of this end. The library spaces all other events."""
    tracer = tracer_of(provider)
    past = 1_729_439_496_514_000_000
    tracer.start_span("any", attributes={**USER, **FEATURE}, start_time=past - 5).end(past)
    run(tracer, "any", feature__name="export")
    first, second = events()
    assert first["timestamp"] == "2024-10-20T15:51:36.514000Z"
    assert second["timestamp"][:4] == time.strftime("%Y", time.gmtime())


def test_impossible_times_are_now(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span whose end is beyond all calendars counts as of now."""
    tracer_of(provider).start_span("any", attributes={**USER, **FEATURE}).end(end_time=10**30)
    (event,) = events()
    assert abs(datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")).timestamp() - time.time()) < 60


def test_endless_spans_are_forgotten(provider: TracerProvider) -> None:
    """A span that nobody ends leaves nothing behind."""
    processor = ThriveStackSpanProcessor()
    provider.add_span_processor(processor)
    span: Any = provider.get_tracer("tests").start_span("endless")
    assert len(processor._started) == 1
    del span
    gc.collect()
    assert processor._started == {}


def test_a_span_before_the_processor_has_its_attributes(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """A span that began before the processor was added counts for the user in its attributes, and nobody else."""
    spans = [provider.get_tracer("tests").start_span("any", attributes={**FEATURE, **user}) for user in (USER, {})]
    provider.add_span_processor(ThriveStackSpanProcessor())
    with user_context("somebody_else"):
        for span in spans:
            span.end()
    assert [event["user_id"] for event in events()] == ["user_123"]


def test_shutdown_ends_the_processor_only(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """After the provider's shutdown spans make no events, and the library goes on."""
    tracer = tracer_of(provider)
    assert provider.force_flush(5_000)
    provider.shutdown()
    run(tracer, "any", feature__name="export")
    ts_autotrack.track("clicked", user_id="user_1")
    assert [event["event_name"] for event in events()] == ["clicked"]


def test_force_flush_waits_for_the_given_time(provider: TracerProvider, dead_endpoint: str) -> None:
    """`force_flush` delivers, or gives up after its milliseconds."""
    ts_autotrack.configure(endpoint=dead_endpoint, api_key="k")
    run(tracer_of(provider), "any", feature__name="export")
    begin = time.monotonic()
    assert not provider.force_flush(200)
    assert time.monotonic() - begin < 5
    assert ts_autotrack.stats().pending == 1


def test_broken_spans_do_no_harm(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """Ids and feature names of wrong types reach the application in no way."""
    tracer = tracer_of(provider, features=ROUTES)
    run(tracer, "any", feature__name=("a", "b"))
    run(tracer, "any", feature__name="export", user__id=1.5)
    run(tracer, "any", SpanKind.SERVER, http__route=7, http__request__method=8)
    run(tracer, "any", SpanKind.SERVER, http__route="/files/{path}", http__request__method=8, user__id="user_1")
    assert [event["properties"]["feature_name"] for event in events()] == ["file_view"]
    assert ts_autotrack.stats().dropped.get("fault", 0) == 0


@pytest.mark.parametrize("is_exporter", [False, True])
@pytest.mark.usefixtures("inspector")
def test_a_full_stack_raises_nothing(is_exporter: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Wherever the stack has space for the end of a span, our processor and exporter leave the span alone."""
    tracers = []
    for ours in (False, True):
        provider = TracerProvider(shutdown_on_exit=False)
        processor = ThriveStackSpanProcessor() if ours else SpanProcessor()
        exporter = ThriveStackSpanExporter() if ours else InMemorySpanExporter()
        provider.add_span_processor(SimpleSpanProcessor(exporter) if is_exporter else processor)
        tracers.append(provider.get_tracer("tests"))
    others, own = map(depths_of_ends, tracers)
    deepest = max(others) - 2 * (sys.gettrace() is not None)  # on Python 3.10 a tracer needs two frames
    assert {depth for depth in others if depth <= deepest} <= own


def depths_of_ends(tracer: trace.Tracer) -> set[int]:
    """Return the numbers of calls around the end of a span at which the end raises nothing."""
    found = set()
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit()):
        span = tracer.start_span("any", attributes={**USER, "feature.name": "export"})
        try:
            end_below(depth, span)
            found.add(depth)
        except RecursionError:
            continue
    return found


def end_below(depth: int, span: trace.Span) -> None:
    """End a span below this number of calls."""
    if depth:
        end_below(depth - 1, span)
    else:
        span.end()


def test_our_own_requests_are_no_spans(provider: TracerProvider, events: Callable[[], Events]) -> None:
    """With instrumented HTTP clients the library's requests make no spans, so no events either."""
    tracer = tracer_of(provider, features={"POST": "post"})
    finished = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    try:
        run(tracer, "POST", SpanKind.CLIENT)
        assert [event["properties"]["feature_name"] for event in events()] == ["post"]
        assert ts_autotrack.stats().accepted == 1
        assert [span.name for span in finished.get_finished_spans() if span.name == "POST"] == ["POST"]
    finally:
        instrumentor.uninstrument()
