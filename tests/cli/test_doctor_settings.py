"""`ts-autotrack doctor` and the settings: sources, faults, credentials, and why nothing is sent."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import ScriptedServer
from ts_autotrack.cli.doctor.checkup import checkup
from ts_autotrack.cli.doctor.findings import Finding, within
from ts_autotrack.cli.doctor.installation import check_installation
from ts_autotrack.cli.doctor.settings import check_key, check_settings, read_settings

KEY = "0123456789-secret"


def examine(folder: Path | None = None) -> list[Finding]:
    """Return the findings about the settings of an application in a folder."""
    settings = read_settings(str(folder or Path.cwd()))
    return [finding.safe() for finding in (*check_settings(settings), *check_key(settings))]


def seen(findings: list[Finding], level: str) -> str:
    """Return the facts of a level."""
    return "\n".join(finding.seen for finding in findings if finding.level == level)


def test_source_of_each_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each given setting is shown with its source; a credential only with its length; the environment wins."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.ts_autotrack]\nflush_interval = 5\nmax_queue = 7\n")
    monkeypatch.setenv("THRIVESTACK_API_KEY", KEY)
    monkeypatch.setenv("TS_AUTOTRACK_MAX_QUEUE", "9")
    findings = examine(tmp_path / "sub")
    shown = seen(findings, "ok")
    assert f"{tmp_path / 'pyproject.toml'} is in force" in shown
    assert "pyproject.toml: flush_interval = 5.0" in shown
    assert "TS_AUTOTRACK_MAX_QUEUE: max_queue = 9" in shown
    assert "api_key comes from THRIVESTACK_API_KEY, set (17 characters)" in shown
    assert KEY not in str(findings)
    assert not seen(findings, "error")


def test_bad_values_and_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad values, unknown settings and unknown variables are warnings with the nearest name."""
    (tmp_path / "ts_autotrack.toml").write_text('flush_intervall = 5\nmax_queue = "many"\n')
    monkeypatch.setenv("TS_AUTOTRACK_OUTBUX", "/srv")
    monkeypatch.setenv("TS_AUTOTRACK_EXIT_TIMEOUT", "soon")
    findings = examine(tmp_path)
    warnings = seen(findings, "warning")
    assert "'flush_intervall': did you mean 'flush_interval'" in warnings
    assert "did you mean 'TS_AUTOTRACK_OUTBOX'" in warnings
    assert "TS_AUTOTRACK_EXIT_TIMEOUT='soon' is ignored" in warnings
    assert "max_queue='many' is ignored" in warnings
    assert "TS_AUTOTRACK_EXIT_TIMEOUT: exit_timeout" not in seen(findings, "ok")


def test_key_in_a_shared_file(tmp_path: Path) -> None:
    """A credential in the settings file is an error, and is not shown."""
    (tmp_path / "pyproject.toml").write_text(f'[tool.ts_autotrack]\napi_key = "{KEY}"\n')
    findings = examine(tmp_path)
    assert "api_key belongs in the environment" in seen(findings, "error")
    assert KEY not in str(findings)


@pytest.mark.parametrize(
    ("variables", "level", "reason"),
    [
        ({}, "error", "there is no key"),
        ({"THRIVESTACK_APIKEY": KEY}, "note", "the variable THRIVESTACK_APIKEY is no setting"),
        ({"THRIVESTACK_API_KEY": KEY, "THRIVESTACK_ENDPOINT": "htps://x"}, "error", "the endpoint is refused"),
        ({"THRIVESTACK_API_KEY": KEY, "DO_NOT_TRACK": "1"}, "warning", "DO_NOT_TRACK is set"),
        ({"THRIVESTACK_API_KEY": KEY, "TS_AUTOTRACK_DISABLED": "1"}, "warning", "TS_AUTOTRACK_DISABLED=1"),
        ({"TS_AUTOTRACK_EXPORTER": "none"}, "warning", "exporter is none"),
        ({"THRIVESTACK_API_KEY": KEY, "TS_AUTOTRACK_IN_TESTS": "0"}, "warning", "pytest runs"),
        ({"THRIVESTACK_AUTH_TOKEN": KEY}, "note", "valid for a day"),
        ({"THRIVESTACK_ENDPOINT": "http://127.0.0.1:8787/api"}, "ok", "no key is needed"),
    ],
    ids=str,
)
def test_reason_of_being_off(
    variables: dict[str, str], level: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason why no events are sent is named."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert reason in seen(examine(), level)


def test_a_check_cannot_hang_or_hide_others() -> None:
    """A check without an end, and one with a fault, are findings; findings before count."""
    forever = threading.Event()

    def hang() -> list[Finding]:
        forever.wait(10)
        return []

    def fail() -> list[Finding]:
        message = "broken"
        raise OSError(message)

    assert [finding.level for finding in within(0.05, "outbox", hang)] == ["error"]
    forever.set()
    assert "OSError: broken" in within(5, "outbox", fail)[0].seen


def test_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings file of another user does not count, unless the operator names the application's command."""
    (tmp_path / "ts_autotrack.toml").write_text("flush_interval = 5\n")
    if os.geteuid() == 0:  # a file of root counts for all users
        os.chown(tmp_path / "ts_autotrack.toml", 54_321, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    assert "belongs to another user" in seen(examine(tmp_path), "warning")
    assert read_settings(str(tmp_path)).values["flush_interval"] == 1
    assert read_settings(str(tmp_path), named=True).values["flush_interval"] == 5


def test_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions are shown; a variable whose package is missing, and propagators without baggage, are named."""
    assert {finding.level for finding in check_installation()} == {"ok"}
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp,thrivestack")
    monkeypatch.setenv("OTEL_PROPAGATORS", "tracecontext")
    found = list(check_installation())
    assert "needs the package opentelemetry-sdk" in seen(found, "error")
    assert "has no baggage" in seen(found, "note")
    metadata = tmp_path / "ts_autotrack-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: ts_autotrack\nVersion: 0.1.0\nRequires-Dist: httpx>=99.1\nRequires-Dist: nowhere>=1\n")
    monkeypatch.syspath_prepend(tmp_path)
    faults = seen(list(check_installation()), "error")
    assert "is too old: 99.1 or newer is needed" in faults
    assert "nowhere is missing" in faults


@pytest.mark.slow
def test_checkout_of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that names the endpoint gets no request, and no key, from a run without the application's command."""
    with closing(ScriptedServer()) as server:
        Path("ts_autotrack.toml").write_text(f'endpoint = "{server.endpoint}"\n')
        monkeypatch.setenv("THRIVESTACK_API_KEY", KEY)
        assert "nothing was sent there" in seen(checkup(send=True), "note")
        assert server.requests == []
        assert "the event has arrived" in seen(checkup([sys.executable], send=True), "ok")
