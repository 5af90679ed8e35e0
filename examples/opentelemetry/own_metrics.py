"""Metrics of the library itself through the OpenTelemetry SDK: queue, drops, deliveries, request times.

Run with TS_AUTOTRACK_EXPORTER=console, or with THRIVESTACK_ENDPOINT set to a running inspector.
"""

from __future__ import annotations

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from ts_autotrack import flush, observe_requests, track_feature, user_context
from ts_autotrack.otel.metrics import instrument_metrics


@track_feature("analytics_dashboard")
def open_dashboard() -> None:
    """Open the dashboard."""


def main() -> None:
    """Use a feature three times, once without a user, and print the metrics."""
    reader = InMemoryMetricReader()  # in production: PeriodicExportingMetricReader(OTLPMetricExporter())
    instrument_metrics(MeterProvider([reader]))
    # The same without OpenTelemetry, for statsd or Prometheus.
    observe_requests(lambda request: print(f"observed: {request.outcome}"))
    with user_context("user_123", group_id="account_456"):
        open_dashboard()
        open_dashboard()
    open_dashboard()
    flush(10)
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        for point in metric.data.data_points:
            error = (point.attributes or {}).get("error.type")
            words = [metric.name, error, getattr(point, "value", "measured")]
            print(*[word for word in words if word is not None])


if __name__ == "__main__":
    main()
