"""Fixtures of OpenTelemetry's tests: providers of the real SDK, and the arrived events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import ts_autotrack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

Events = list[dict[str, Any]]


@pytest.fixture
def events(inspector: Inspector) -> Callable[[], Events]:
    """Return a function that returns the events arrived so far, without ids and times."""

    def arrived() -> Events:
        ts_autotrack.flush()
        return inspector.items()

    return arrived


@pytest.fixture
def provider() -> Iterator[TracerProvider]:
    """Return a provider of spans without processors."""
    made = TracerProvider(shutdown_on_exit=False)
    yield made
    made.shutdown()


@pytest.fixture
def global_provider(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """Make the provider the global one; the API allows that once in a process."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider
