"""The examples of OpenTelemetry run as their README says."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import run_python

FOLDER = Path(__file__).parents[2] / "examples" / "opentelemetry"


def test_two_services() -> None:
    """The event of the second service has the user and the account of the first."""
    result = run_python(
        (FOLDER / "two_services.py").read_text(),
        TS_AUTOTRACK_EXPORTER="jsonl",
        TS_AUTOTRACK_JSONL_PATH="events.jsonl",  # on standard output the program prints, too
    )
    assert (result.returncode, result.stdout) == (0, "report\n"), result.stderr
    item = json.loads(Path("events.jsonl").read_text())["item"]
    assert (item["user_id"], item["properties"]["feature_name"]) == ("user_123", "report_export")
    assert (item["context"]["group_id"], item["context"]["identity_source"]) == ("account_456", "baggage")


def test_traces() -> None:
    """The event has the ids of its span, and the span has an event with the name of the feature, without ids."""
    result = run_python(
        (FOLDER / "traces.py").read_text(),
        TS_AUTOTRACK_EXPORTER="jsonl",
        TS_AUTOTRACK_JSONL_PATH="events.jsonl",
        TS_AUTOTRACK_SPAN_EVENTS="1",
    )
    assert result.returncode == 0, result.stderr
    span, item = json.loads(result.stdout), json.loads(Path("events.jsonl").read_text())["item"]
    assert [(event["name"], event["attributes"]) for event in span["events"]] == [
        ("feature_used", {"feature.name": "analytics_dashboard"})
    ]
    assert item["context"]["trace_id"] == span["context"]["trace_id"].removeprefix("0x")
    assert item["context"]["span_id"] == span["context"]["span_id"].removeprefix("0x")
