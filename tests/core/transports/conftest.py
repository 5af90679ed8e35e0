"""Fixtures of transports: a Collector, and the library configured with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import ts_autotrack
from tests.core.transports.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def no_otel_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the variables of OpenTelemetry."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def collector(no_otel_variables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A receiver of log records, and the library configured with the exporter otlp."""
    del no_otel_variables
    receiver = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
    ts_autotrack.configure(exporter="otlp", flush_interval=0.05)
    yield receiver
    ts_autotrack.shutdown(0.5)
    receiver.close()
