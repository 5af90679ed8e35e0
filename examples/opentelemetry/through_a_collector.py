"""Events as OpenTelemetry log records, for a Collector between the application and ThriveStack.

Set TS_AUTOTRACK_EXPORTER=otlp; the OTEL_EXPORTER_OTLP_* variables name the Collector. The code stays as it is.
"""

from __future__ import annotations

from ts_autotrack import flush, group, stats, track_feature, user_context


@track_feature("analytics_dashboard")
def open_dashboard() -> None:
    """Open the dashboard."""


def main() -> None:
    """Use a feature, name the account's plan, and wait until the Collector has both."""
    with user_context("user_123", group_id="account_456", device_type="mobile"):
        open_dashboard()
        group("account_456", {"plan": "premium"})
    print(f"settled: {flush(10)}, delivered: {stats().delivered}")


if __name__ == "__main__":
    main()
