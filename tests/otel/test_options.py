"""Options of exporters and processors, and the settings behind them."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import pytest

import ts_autotrack
from ts_autotrack.otel import logs, spans
from ts_autotrack.otel._options import Options, read_options

KEYS = {
    "user_keys": ("user.id", "enduser.id"),
    "group_keys": ("group.id", "account.id", "tenant.id", "organization.id"),
}
"""Names of ids without settings of their own."""


def test_names_of_ids_are_those_of_baggage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that name the ids in baggage name them in attributes, too."""
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE_USER_KEYS", "member.id")
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE_GROUP_KEYS", "workspace.id")
    options = read_options("Exporter", {})
    assert (options.user_keys, options.group_keys) == (("member.id",), ("workspace.id",))


def test_settings_are_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments the settings of the environment count."""
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_FEATURES", "GET /a?x=1=first, export-report = second ")
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_PROPERTIES", "format, pages")
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_ERRORS", "1")
    monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE", "1")
    features = {"GET /a?x=1": "first", "export-report": "second"}
    assert read_options("Exporter", {}) == Options(features, ("format", "pages"), errors=True, baggage=True, **KEYS)


def test_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, also texts of a declarative file, win over the settings; None leaves the setting."""
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_FEATURES", '{"a": "b"}')
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_PROPERTIES", "format")
    given = {"features": {"c": "d"}, "properties": None, "errors": "true"}
    assert read_options("Exporter", given) == Options({"c": "d"}, ("format",), errors=True, baggage=False, **KEYS)


@pytest.mark.parametrize("make", [spans.ThriveStackSpanExporter, spans.ThriveStackSpanProcessor,
                                  logs.ThriveStackLogExporter, logs.ThriveStackLogRecordProcessor])  # fmt: skip
def test_bad_options_are_one_warning_each(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A constructor never raises: unknown and bad options are ignored, with a warning that names the remedy."""
    for _ in range(2):
        made = make(feature={}, features=3, properties=[1], errors="perhaps", colour="red")
    assert made._options == Options({}, (), errors=False, baggage=False, **KEYS)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 5
    assert f"ts_autotrack: {make.__name__} has no option 'feature', which is ignored: did you mean 'features'?" in texts
    assert f"ts_autotrack: {make.__name__}: the option errors='perhaps' is ignored: expected 1 or 0" in texts


@pytest.mark.parametrize("value", ["report_view", "=x", "a=", '{"a": 1}', "{", "a=b,c"])
def test_a_bad_variable_is_a_warning(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad TS_AUTOTRACK_OTEL_FEATURES counts as absent, with a warning that shows the form."""
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_FEATURES", value)
    assert spans.ThriveStackSpanExporter()._options.features == {}
    assert spans.ThriveStackSpanExporter()._options.features == {}
    (record,) = caplog.records
    assert "TS_AUTOTRACK_OTEL_FEATURES" in record.getMessage()
    assert "GET /reports/{id}=report_view" in record.getMessage()


def test_settings_show_what_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    """`settings()` has all settings but credentials; given values win over `configure()` and the environment."""
    monkeypatch.setenv("THRIVESTACK_API_KEY", "secret")
    monkeypatch.setenv("TS_AUTOTRACK_MAX_QUEUE", "5")
    monkeypatch.setenv("TS_AUTOTRACK_INTEGRATIONS", "celery, threads")
    found = ts_autotrack.settings()
    assert "secret" not in repr(found)
    assert (found["max_queue"], found["integrations"], found["exporter"]) == (5, ("celery", "threads"), "thrivestack")
    ts_autotrack.configure(max_queue=6, exporter="none", integrations=["threads"])
    assert ts_autotrack.settings()["max_queue"] == 6
    assert ts_autotrack.settings(max_queue=7)["max_queue"] == 7
    assert ts_autotrack.settings()["integrations"] == ("threads",)
    with pytest.raises(ValueError, match="max_queue"):
        ts_autotrack.settings(max_queue=0)
    with pytest.raises(TypeError, match="max_queu"):
        ts_autotrack.settings(max_queu=1)


@pytest.mark.parametrize("value", [3, [1], {"a": 1}])
def test_names_are_a_list_of_texts(value: Any) -> None:
    """A list of names is refused if it is none."""
    with pytest.raises(ValueError, match="expected a list of names"):
        ts_autotrack.configure(integrations=value)


@pytest.mark.parametrize("module", ["spans", "logs", "instrumentor"])
def test_examples_in_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of the public classes do as they show."""
    monkeypatch.setenv("TS_AUTOTRACK_EXPORTER", "none")
    result = doctest.testmod(importlib.import_module(f"ts_autotrack.otel.{module}"))
    assert result.failed == 0
    assert result.attempted > 0
