"""Faults of the library are reported and survived; credentials are never shown."""

from __future__ import annotations

import json

import pytest

from tests.conftest import ScriptedServer, wait_until
from tests.core.conftest import names
from ts_autotrack import configure, flush, stats, track
from ts_autotrack._core import diagnostics
from ts_autotrack._core.client import client

pytestmark = pytest.mark.usefixtures("acting")


def test_fault_in_delivery_is_reported_and_survived(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the library is counted and logged with a reason, and the next events are delivered."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    configure(endpoint="https://127.0.0.1:1")
    track("e")
    wait_until(lambda: "delivering events failed" in caplog.text, "the report")
    monkeypatch.delenv("HTTPS_PROXY")
    configure(endpoint=server.endpoint)
    assert flush(10)
    assert names(server.items) == ["e"]
    assert "the application was not affected" in caplog.text


def test_faults_are_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A repeated fault is logged once a minute, and its own message cannot break the log."""

    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise LookupError

    monkeypatch.setattr(diagnostics, "reraise", False)
    before = diagnostics.faults.read()
    for _ in range(5):
        diagnostics.fault("testing", UnprintableError())
        diagnostics.report()
    monkeypatch.setattr(diagnostics, "FAULT_INTERVAL", 0.0)
    diagnostics.fault("testing", ValueError("again"))
    diagnostics.report()
    assert diagnostics.faults.read() - before == 6
    assert [record.getMessage() for record in caplog.records] == [
        "ts_autotrack: testing failed (UnprintableError); the application was not affected",
        "ts_autotrack: testing failed (ValueError: again); the application was not affected",
    ]


def test_key_appears_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture, dead_endpoint: str) -> None:
    """No log line at any level, no repr and no exception shows the credentials."""
    caplog.set_level("DEBUG")
    secret = "s3cr3t-key"
    configure(endpoint=dead_endpoint, api_key=secret, auth_token=secret, debug=True)
    track("e")
    assert not flush(0.3)
    assert secret not in repr(client.config)
    assert secret not in caplog.text
    with pytest.raises(ValueError, match="api_key") as error:
        configure(api_key=f"{secret}\n{secret}")
    assert secret not in str(error.value)
    assert json.dumps(stats()._asdict())
