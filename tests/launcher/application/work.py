"""The work of a small application, which does not know ts_autotrack. Its user travels as OpenTelemetry baggage."""

from __future__ import annotations

from opentelemetry import baggage, context


def export_report(number: int) -> int:
    """Return the number of the report: the function that the settings name."""
    return number


def perform(number: int) -> None:
    """Export a report for its user: each call has a user of its own."""
    acting = baggage.set_baggage("group.id", "acme", baggage.set_baggage("user.id", f"user-{number}"))
    token = context.attach(acting)
    try:
        export_report(number)
    finally:
        context.detach(token)
