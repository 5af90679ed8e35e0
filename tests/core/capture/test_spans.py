"""Spans of OpenTelemetry: ids of traces in events, and events in spans. In processes of their own: a process has one
tracer provider for good.
"""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import run_python

BEGIN = """
import sys, threading, contextvars
import ts_autotrack
from ts_autotrack import bind_user, flush, request_scope, stats, suppress, track, track_feature, user_context

@track_feature("function")
def function(*_): pass
@track_feature("coroutine")
async def coroutine(): pass
@track_feature("generator")
def generator():
    yield 1
    yield 2
@track_feature("async_generator")
async def async_generator():
    yield 1
    yield 2
@track_feature("binding")
def binding():
    bind_user("bound")
    yield 1
@track_feature("captured", capture=["path"], on="always")
def captured(path): pass
def finish(coroutine):
    try: coroutine.send(None)
    except StopIteration as stop: return stop.value
def shown(span):
    context = span.get_span_context()
    return [f"{context.trace_id:032x}", f"{context.span_id:016x}"]
"""
TRACE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
spans = InMemorySpanExporter()
def provide(**options):
    provider = TracerProvider(**options)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
tracer = trace.get_tracer("test")
"""


def run(code: str, begin: str = BEGIN + TRACE, **environment: str) -> tuple[list[dict[str, Any]], Any]:
    """Run a program; return its items, and the JSON of its last line of output."""
    result = run_python(begin + code, TS_AUTOTRACK_EXPORTER="jsonl", **environment)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [line["item"] for line in lines if "item" in line], next(line["shown"] for line in lines if "shown" in line)


def ids(items: list[dict[str, Any]]) -> list[tuple[str, list[str] | None]]:
    """Return feature or event name, and trace and span ids, of items."""
    return [
        (
            item["properties"].get("feature_name", item["event_name"]),
            [item["context"]["trace_id"], item["context"]["span_id"]] if "trace_id" in item["context"] else None,
        )
        for item in items
    ]


END = "\nflush(5); import json; print(json.dumps({'shown': shown_ids, 'left': stats().pending}), flush=True)\n"


def test_events_have_the_ids_of_the_current_span() -> None:
    """Each kind of event has the ids of the current span, from the first event on, and no ids outside of spans."""
    items, span = run(
        """
provide()
with user_context("u", group_id="g"):
    with tracer.start_as_current_span("outer") as span:
        function()
        function()
        captured("p")
        finish(coroutine())
        list(generator())
        with track_feature("block"): pass
        track("event")
        track("past", timestamp=0)
        shown_ids = shown(span)
    function()
    track("event")
"""
        + END
    )
    names = ["function", "function", "captured", "coroutine", "generator", "block", "event", "past"]
    assert ids(items) == [*((name, span) for name in names), ("function", None), ("event", None)]
    assert (len(span[0]), len(span[1])) == (32, 16)
    assert items[7]["timestamp"] == "1970-01-01T00:00:00.000000Z"


def test_work_that_ends_elsewhere_has_the_ids_of_its_beginning() -> None:
    """A generator, and a block inside a generator, belong to the span at their beginning."""
    items, span = run(
        """
provide()
@track_feature("returned")
def returned(): return (number for number in (1, 2))
def inside():
    with track_feature("block"):
        yield 1
function()
with user_context("u", group_id="g"):
    with tracer.start_as_current_span("outer") as span:
        stream = async_generator()
        finish(stream.__anext__())
        begun = [generator(), returned(), inside(), binding()]
        for work in begun: next(work)
        shown_ids = shown(span)
    outside = generator()
    next(outside)
with user_context("other", group_id="h"), tracer.start_as_current_span("elsewhere"):
    for work in begun: list(work)
    finish(stream.aclose())
    list(outside)
"""
        + END
    )
    names = ["generator", "returned", "block", "binding", "async_generator"]
    assert ids(items) == [*((name, span) for name in names), ("generator", None)]
    assert [item["user_id"] for item in items] == ["u", "u", "u", "bound", "u", "bound"]


def test_events_that_wait_for_a_user_keep_their_span() -> None:
    """An event before the login has the ids of the span in which it happened."""
    items, span = run(
        """
provide()
with request_scope():
    with tracer.start_as_current_span("login") as span:
        function()
        shown_ids = shown(span)
    bind_user("u", group_id="g")
"""
        + END
    )
    assert ids(items) == [("function", span)]


def test_spans_of_other_services_and_unsampled_spans_count() -> None:
    """A valid span counts if it is not recorded; the application's own trace_id and span_id in the context win."""
    items, shown = run(
        """
provide(sampler=sampling.ALWAYS_OFF)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
remote = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(0)))
with user_context("u", group_id="g"):
    with trace.use_span(remote):
        function()
        with tracer.start_as_current_span("unsampled") as span:
            function()
            shown_ids = [shown(remote), shown(span)]
        with user_context(context={"trace_id": "own"}): function()
    with trace.use_span(trace.INVALID_SPAN): function()
"""
        + END,
        TS_AUTOTRACK_SPAN_EVENTS="1",
    )
    assert ids(items[:2]) == [("function", shown[0]), ("function", shown[1])]
    assert shown[0] == ["0" * 29 + "abc", "0" * 13 + "def"]
    assert items[2]["context"]["trace_id"] == "own"
    assert ["span_id" in item["context"] for item in items] == [True, True, False, False]


def test_a_provider_that_is_set_late() -> None:
    """Without a provider no event has ids, though a span may be there; a provider counts once the queue has emptied."""
    items, shown = run(
        """
from opentelemetry.trace import NonRecordingSpan, SpanContext
import time
with user_context("u", group_id="g"), trace.use_span(NonRecordingSpan(SpanContext(1, 2, is_remote=True))):
    function()
    from ts_autotrack._core.capture.spans import tracing
    from ts_autotrack._core.capture import wrappers
    shown_ids = [tracing.in_use, wrappers.now is time.time_ns, wrappers.start is wrappers.current]
    provide()
    ts_autotrack.configure(flush_interval=0.01)
    function()
"""
        + END
    )
    assert [("trace_id" in item["context"]) for item in items] == [False, True]
    assert shown == [False, True, True]


def test_tracked_calls_leave_events_in_spans() -> None:
    """With SPAN_EVENTS each tracked call leaves the feature's name, and no id, in the recording span of the event."""
    items, shown = run(
        """
provide()
with user_context("u", group_id="g"):
    with tracer.start_as_current_span("span") as span:
        function()
        captured("p")
        track("event")
        with track_feature("block"): pass
        begun = generator()
        next(begun)
        with suppress(): function()
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(function,)) for _ in range(3)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        with tracer.start_as_current_span("inner"): list(begun)
    with tracer.start_as_current_span("nobody"), user_context(""): function()
    begun = generator()
    next(begun)
    function()
    ts_autotrack.configure(span_events=False)
    with tracer.start_as_current_span("off"): function()
shown_ids = [[span.name, [[event.name, dict(event.attributes)] for event in span.events]]
             for span in spans.get_finished_spans()]
"""
        + END,
        TS_AUTOTRACK_SPAN_EVENTS="1",
    )
    names = ["function", "captured", "block", "function", "function", "function", "generator"]
    noted = [["feature_used", {"feature.name": name}] for name in names]
    one = [["feature_used", {"feature.name": "function"}]]
    assert shown == [["inner", []], ["span", noted], ["nobody", one], ["off", []]]
    assert len(items) == 10


def test_a_tracer_that_fails_costs_no_event() -> None:
    """A span of the application that raises costs the ids, not the event, and the caller sees nothing."""
    items, left = run(
        """
provide()
class Broken(trace.NonRecordingSpan):
    def get_span_context(self): raise ValueError("broken")
class Full(trace.NonRecordingSpan):
    def is_recording(self): return True
    def add_event(self, *arguments, **options): raise ValueError("broken")
with user_context("u", group_id="g"):
    for events in (False, True):
        ts_autotrack.configure(span_events=events)
        for span in (Broken(trace.INVALID_SPAN_CONTEXT), Full(trace.SpanContext(1, 2, is_remote=False))):
            with trace.use_span(span):
                function()
                list(generator())
                track("event")
shown_ids = stats().dropped
"""
        + END
    )
    assert len(items) == 12
    assert left == {}
