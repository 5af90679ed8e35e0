"""Spans to events: a processor, and an exporter for `OTEL_TRACES_EXPORTER=thrivestack`.

A span becomes an event "feature_used" when it ends, if it carries the attribute `feature.name`, or if its name or route
is one of the setting TS_AUTOTRACK_OTEL_FEATURES. Failed spans do not count. The user is the user in the span's
attributes (`user.id`, `enduser.id`; `group.id`, `account.id`, `tenant.id`, `organization.id`), else the user who acted
where the span began, else the user in the baggage there; baggage counts only with TS_AUTOTRACK_BAGGAGE=1. Of the other
attributes only `feature.*` and those in TS_AUTOTRACK_OTEL_PROPERTIES become properties.

The processor sees attributes, acting user and baggage. An exporter sees attributes only, so the exporter adds the
processor to its provider with its first batch; the instrumentor of `opentelemetry-instrument` does so at once. A span
makes one event at most.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ts_autotrack.integrations._log import warn_once
from ts_autotrack.otel._events import Flushes, Made, send, with_nobody
from ts_autotrack.otel._features import SpanFeatures
from ts_autotrack.otel._options import NAMES, read_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from opentelemetry.context import Context as BaggageContext
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from ts_autotrack.otel._options import Options

_made = Made()
_exporters: WeakSet[ThriveStackSpanExporter] = WeakSet()
_processors: WeakSet[ThriveStackSpanProcessor] = WeakSet()


class _Start(ref["Span"]):
    """A reference to a span, with the context in which the span began; goes away with a span that never ends."""

    __slots__ = ("context", "number", "parent")
    context: Context
    number: int
    parent: BaggageContext | None


class ThriveStackSpanProcessor(Flushes, SpanProcessor):
    """Makes events of spans when they end, on the caller's thread: none is lost between a span and its event.

    Spans that a sampler drops never reach a processor, and make no event. The arguments replace the settings
    TS_AUTOTRACK_OTEL_*; unknown or bad ones are ignored with a warning. Nothing here raises.

    Args:
        features: Names of features by span name or route.
        properties: Names of attributes that become properties.
        errors: True if failed spans count, too; all events then have `outcome`.

    Attributes:
        closed: True after `shutdown()`.
        provider: Returns the provider to which this module has added the processor; None for other processors.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from ts_autotrack.otel.spans import ThriveStackSpanProcessor
        >>> provider = TracerProvider()
        >>> provider.add_span_processor(ThriveStackSpanProcessor(features={"export-report": "report_export"}))
    """

    def __init__(self, **options: Any) -> None:
        self._options = read_options(type(self).__name__, options)
        self._features = SpanFeatures(self._options)
        started: dict[int, _Start] = {}
        self._started = started  # by the id of the span's SpanContext, which the ended span has, too
        self._forget = lambda start: started.pop(start.number, None)
        self.closed = False
        self.provider: Callable[[], object] = lambda: None
        _processors.add(self)

    def on_start(self, span: Span, parent_context: BaggageContext | None = None) -> None:
        """Keep the context in which a span begins, with the user who acts."""
        try:
            if self.closed:
                return
            start = _Start(span, self._forget)
            number = start.number = id(span.context)
            start.context = copy_context()
            start.parent = parent_context
            self._started[number] = start
        except RecursionError:  # the stack has no space for a call of `_warn_of_fault`
            pass
        except Exception as error:  # noqa: BLE001 - the application's span goes on
            _warn_of_fault(error)

    def on_end(self, span: ReadableSpan) -> None:
        """Make the event of a span that uses a feature."""
        try:
            number = id(span.context)
            try:
                self._count(span, self._started.get(number))
            finally:
                self._started.pop(number, None)
        except RecursionError:
            pass
        except Exception as error:  # noqa: BLE001 - likewise
            _warn_of_fault(error)

    def _count(self, span: ReadableSpan, start: _Start | None) -> None:
        if self.closed or (properties := self._features.properties_of(span)) is None or span in _made:
            return
        _made.add(span)
        if start is None:  # the span began before the processor was added
            with_nobody(_send, span, properties, self._options)
        else:
            start.context.run(_send, span, properties, self._options, start.parent)

    def awaits(self, span: ReadableSpan) -> bool:
        """Return True if `on_end` is still to make the event of a span: exporters in front see ended spans earlier."""
        return not self.closed and id(span.context) in self._started and self._features.properties_of(span) is not None

    def serves(self, provider: object, options: Options) -> bool:
        """Return True if this module has added the processor to this provider, with these options."""
        return self.provider() is provider and not self.closed and self._options == options

    def shutdown(self) -> None:
        """Make no more events of spans. The library goes on: it delivers until the end of the process."""
        self.closed = True
        self._started.clear()


class ThriveStackSpanExporter(Flushes, SpanExporter):
    """Makes events of exported spans: the exporter "thrivestack" of OTEL_TRACES_EXPORTER and of declarative files.

    Its first batch adds a `ThriveStackSpanProcessor` to the global provider, if the spans come from this provider.
    Earlier spans, and spans of another provider, have the user in their attributes only. The processor has the same
    options.

    Example:
        >>> from opentelemetry.sdk.trace import TracerProvider
        >>> from opentelemetry.sdk.trace.export import BatchSpanProcessor
        >>> from ts_autotrack.otel.spans import ThriveStackSpanExporter
        >>> provider = TracerProvider()
        >>> provider.add_span_processor(BatchSpanProcessor(ThriveStackSpanExporter()))
    """

    def __init__(self, **options: Any) -> None:
        self._options = read_options(type(self).__name__, options)
        self._features = SpanFeatures(self._options)
        _exporters.add(self)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Make the events of spans that have made none. Always a success: the events are in the library's account."""
        try:
            for span in spans:
                self._count(span)
            provider = trace.get_tracer_provider()
            if spans and getattr(provider, "resource", None) is spans[0].resource:
                self.complete(provider)
        except RecursionError:
            pass
        except Exception as error:  # noqa: BLE001 - the SDK's thread goes on
            _warn_of_fault(error)
        return SpanExportResult.SUCCESS

    def _count(self, span: ReadableSpan) -> None:
        try:
            properties = self._features.properties_of(span)
            # In this order: a processor on another thread notes the event before it forgets the span.
            if (
                properties is not None
                and not any(processor.awaits(span) for processor in list(_processors))
                and span not in _made
            ):
                _made.add(span)
                with_nobody(_send, span, properties, self._options)
        except Exception as error:  # noqa: BLE001 - the other spans of the batch count
            _warn_of_fault(error)

    def complete(self, provider: object) -> None:
        """Add a processor with the options of this exporter to a provider, unless the provider has such a processor."""
        add_processor(provider, self._options)

    def shutdown(self) -> None:
        """Do nothing: the library delivers until the end of the process."""


def complete_exporters() -> None:
    """Add the processor to the global provider for the exporters made so far."""
    for exporter in list(_exporters):
        exporter.complete(trace.get_tracer_provider())


def add_processor(provider: Any, options: Options) -> ThriveStackSpanProcessor | None:
    """Add a processor to a provider, once for the same options; return the processor if it was added."""
    # Without a processor to compare: reading its options takes 0.6 ms, and the simple processor exports in the request.
    is_served = any(processor.serves(provider, options) for processor in list(_processors))
    if is_served or not hasattr(provider, "add_span_processor"):
        return None
    processor = ThriveStackSpanProcessor(**{name: getattr(options, name) for name in NAMES})
    processor.provider = ref(provider)  # no dict has all providers as keys: Logfire's cannot be hashed
    provider.add_span_processor(processor)
    return processor


def _send(
    span: ReadableSpan, properties: dict[str, Any], options: Options, parent: BaggageContext | None = None
) -> None:
    context, attributes = span.context, span.attributes or {}
    ids = (context.trace_id, context.span_id) if context else (0, 0)
    send("feature_used", properties, attributes, span.end_time, ids, parent=parent, options=options)


def _warn_of_fault(error: Exception) -> None:
    warn_once(f"a span was not examined ({type(error).__name__}); please report this")
