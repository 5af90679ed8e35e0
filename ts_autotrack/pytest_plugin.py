"""Pytest plugin: the fixture `captured_events`. Imports pytest only; the fixture imports the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ts_autotrack.testing import Events


@pytest.fixture
def captured_events() -> Iterator[Events]:
    """Capture the events of the test: see `ts_autotrack.testing.capture_events`. They are shown if the test fails."""
    from ts_autotrack.testing import capture_events

    with capture_events() as events:
        yield events


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the captured events to the report of a test that fails."""
    report = yield
    events: Any = getattr(item, "funcargs", {}).get("captured_events")
    if call.when == "call" and report.failed and events is not None:
        report.sections.append(("Captured ts_autotrack events", str(events)))
    return report
