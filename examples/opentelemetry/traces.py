"""An event that leads to its trace, and a span that shows the feature used. Prints both."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from ts_autotrack import track_feature, user_context


@track_feature("analytics_dashboard")
def open_dashboard() -> str:
    """Serve the feature."""
    return "dashboard"


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)

with trace.get_tracer("example").start_as_current_span("request"), user_context("user_123", group_id="account_456"):
    open_dashboard()
