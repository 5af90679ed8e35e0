"""Spans of OpenTelemetry: their ids travel with the events captured inside, and spans note the features used.

Captures pay nothing as long as the application does not trace: once a tracer provider is set, the clock of the captures
is replaced by a clock that also reads the current span.

The span of a function or coroutine is the current span at its end, which is in its own context. A generator, a block
inside a generator, and work that a function returns may end in another context, so their span is the span at their
beginning. Spans that are not recorded, and spans of other services, have ids, too.
"""

from __future__ import annotations

import sys
from time import time_ns

from ts_autotrack._core.capture.stack import every_call
from ts_autotrack._core.diagnostics import fault
from ts_autotrack._core.identity.scope import Scope

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ts_autotrack._core.capture.record import EventTemplate, Moment, SpanIds

CURRENT = object()
"""Stands for the current span."""
_UNREADY = Scope()

_replacements: list[tuple[dict[str, Any], dict[str, Any]]] = []  # names of a module, and their values while tracing


class Beginning:
    """Scope and span at the beginning of a call that may end in another context.

    Attributes:
        entry: The entered block around the scope, as in a Scope.
        scope: The scope.
        span: The current span of OpenTelemetry; its ids are valid.
    """

    __slots__ = ("entry", "scope", "span")
    ready = False

    def __init__(self, scope: Scope, span: Any) -> None:
        self.scope = scope
        self.span = span
        self.entry = scope.entry


class Tracing:
    """The application's tracing by OpenTelemetry.

    Attributes:
        in_use: True once a tracer provider is set; applications cannot take a provider back.
        notes_features: The setting SPAN_EVENTS: recording spans get an event for each tracked call.
    """

    __slots__ = ("_current_span", "in_use", "notes_features")

    def __init__(self) -> None:
        self._current_span: Callable[[], Any] = object
        self.in_use = False
        self.notes_features = False

    def note_features(self, *, on: bool) -> None:
        """Apply the setting SPAN_EVENTS."""
        self.notes_features = on
        self.look()
        every_call(on and self.in_use)

    def look(self) -> None:
        """Find out whether the application traces by now. Never raises."""
        trace: Any = sys.modules.get("opentelemetry.trace")
        if self.in_use or trace is None:
            return
        try:
            if isinstance(trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
                return
            self._current_span = trace.get_current_span
        except Exception:  # noqa: BLE001 - the module is still loading, or OTEL_PYTHON_TRACER_PROVIDER is no good
            return
        self.in_use = True
        every_call(self.notes_features)
        for module, names in _replacements:
            module.update(names)

    def begin(self, scope: Scope) -> Scope | Beginning:
        """Return the beginning of a call: its scope, with the current span if there is any."""
        span = self._current_span()
        return scope if _ids_of(span) is None else Beginning(scope, span)

    def moment(self, template: EventTemplate, moment: int | str | None, span: Any = CURRENT) -> Moment:
        """Return the moment of an event, and note a feature in its span if the setting SPAN_EVENTS says so.

        Args:
            template: Common part of the event.
            moment: Time of the event; None for now.
            span: Span of the event; None without a span.
        """
        time = time_ns() if moment is None else moment
        try:
            if span is CURRENT:
                span = self._current_span()
            if span is None or (ids := _ids_of(span)) is None:
                return time
            feature = template.properties.get("feature_name") if self.notes_features else None
            if isinstance(feature, str) and span.is_recording():
                span.add_event(template.event_name, {"feature.name": feature})
        except RecursionError:  # the stack has no space for a call of `fault`
            return time
        except Exception as error:  # noqa: BLE001 - a tracer of the application
            fault("reading the current span", error)
            return time
        return time, ids

    def now(self) -> Moment:
        """Return the time, and the ids of the current span if there is any: the clock of captures while tracing."""
        time = time_ns()
        try:
            ids = _ids_of(self._current_span())
        except RecursionError:
            return time
        except Exception as error:  # noqa: BLE001 - a tracer of the application
            fault("reading the current span", error)
            return time
        return time if ids is None else (time, ids)


def when_tracing(module: dict[str, Any], **names: Any) -> None:
    """Replace names of a module once the application traces.

    Args:
        module: The module's `globals()`.
        **names: Names to values.
    """
    _replacements.append((module, names))


def unready() -> Scope:
    """Return a scope by which no capture appends directly."""
    return _UNREADY


def _ids_of(span: Any) -> SpanIds | None:
    context = span.get_span_context()
    return (context.trace_id, context.span_id) if context.is_valid else None


tracing = Tracing()
"""The tracing of this process."""
