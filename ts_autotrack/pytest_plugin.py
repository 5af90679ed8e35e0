"""Pytest plugin: the fixture `captured_events`. Imports pytest only; the fixture imports the rest.

Each pytest process loads this plugin, also in old versions: the plugin uses no hook of newer versions only.
"""

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


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the variable by which the library knows pytest before any conftest.py is imported; pytest 8.2 does the same.

    An event of an import would otherwise fix the settings while no test runs, and all events would be sent.
    """
    environment = pytest.MonkeyPatch()
    environment.setenv("PYTEST_VERSION", pytest.__version__)
    early_config.add_cleanup(environment.undo)


@pytest.hookimpl(hookwrapper=True)  # every pluggy knows it; wrapper=True came with pluggy 1.2
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add the captured events to the report of a test that fails."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    events: Any = getattr(item, "funcargs", {}).get("captured_events")
    if call.when == "call" and report.failed and events is not None:
        report.sections.append(("Captured ts_autotrack events", str(events)))
