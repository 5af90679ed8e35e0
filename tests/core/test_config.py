"""Sources of settings, their precedence, and the effect of bad settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from ts_autotrack._core.config import SETTINGS, load
from ts_autotrack._core.contract import DEFAULT_ENDPOINT

if TYPE_CHECKING:
    from tests.conftest import Inspector


TRACK_ONE = "from ts_autotrack import track, flush, stats; track('e', user_id='u'); flush(5); print(stats().dropped)"


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """configure() wins over the environment, the environment over the nearest pyproject.toml, the file over the
    default.
    """
    Path("pyproject.toml").write_text(
        "[tool.ts_autotrack]\nflush_interval = 3\nmax_queue = 30\nexit_timeout = 0.5\nbaggage = false\n", "utf-8"
    )
    Path("deeper").mkdir()
    monkeypatch.setenv("TS_AUTOTRACK_FLUSH_INTERVAL", "2")
    monkeypatch.setenv("TS_AUTOTRACK_MAX_QUEUE", "20")
    config = load({"flush_interval": 1}, str(Path("deeper").absolute()))
    assert (config.flush_interval, config.max_queue, config.exit_timeout, config.baggage.read) == (1.0, 20, 0.5, False)
    assert config.server.endpoint == DEFAULT_ENDPOINT
    assert config.server.request_timeout == SETTINGS["request_timeout"].default


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("", None),
        ("http://127.0.0.1:4318", None),
        ("localhost:4318", None),
        ("https://collector.example.com:4318/v1/logs", "in_tests"),
        ("collector:4318", "in_tests"),
    ],
)
def test_tests_send_nothing_to_a_collector_elsewhere(
    endpoint: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under pytest the exporter otlp sends to this machine only, as the others do."""
    monkeypatch.delenv("TS_AUTOTRACK_IN_TESTS")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    assert load({"exporter": "otlp"}).off_reason == reason


def test_the_nearest_pyproject_counts() -> None:
    """A project without settings of the library hides the settings of a parent folder."""
    Path("pyproject.toml").write_text("[tool.ts_autotrack]\nmax_queue = 30\n", "utf-8")
    Path("inner").mkdir()
    Path("inner/pyproject.toml").write_text("[tool.other]\n", "utf-8")
    assert load({}, str(Path("inner").absolute())).max_queue == SETTINGS["max_queue"].default


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.ts_autotrack\n", "is ignored"),
        ("tool.ts_autotrack = 7\n", "it is no table"),
        ("ts_autotrack = " + "[" * 5_000, "is ignored"),
        ("tool = 7 # ts_autotrack\n", "is ignored"),
        ("[tool.ts_autotrack]\nmax_quue = 1\n", "has no setting 'max_quue'"),
        ("[tool.ts_autotrack]\nmax_queue = 'many'\n", "a whole number from 1"),
        ("[tool.ts_autotrack]\napi_key = 'topsecret'\n", "api_key belongs in the environment"),
    ],
)
def test_bad_pyproject_warns(text: str, message: str, caplog: pytest.LogCaptureFixture) -> None:
    """An unusable pyproject.toml is ignored with a warning, and all other settings hold."""
    Path("pyproject.toml").write_text(text, "utf-8")
    assert load({}, str(Path.cwd())).max_queue == SETTINGS["max_queue"].default
    assert message in caplog.text
    assert "topsecret" not in caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("TS_AUTOTRACK_FLUSH_INTERVAL", "soon", "flush_interval"),
        ("TS_AUTOTRACK_FLUSH_INTERVAL", "-1", "flush_interval"),
        ("TS_AUTOTRACK_REQUEST_TIMEOUT", "nan", "request_timeout"),
        ("TS_AUTOTRACK_MAX_QUEUE", "0", "max_queue"),
        ("TS_AUTOTRACK_EXPORTER", "kafka", "exporter"),
        ("TS_AUTOTRACK_DEBUG", "perhaps", "debug"),
        ("THRIVESTACK_API_KEY", "two words", "api_key"),
        ("THRIVESTACK_AUTH_TOKEN", "schlüssel", "auth_token"),
    ],
)
def test_bad_environment_warns_and_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str, name: str
) -> None:
    """A bad variable is named with the values allowed; the default takes its place; no credential is shown."""
    monkeypatch.setenv(variable, value)
    config = load({})
    assert getattr(config if hasattr(config, name) else config.server, name) == SETTINGS[name].default
    assert f"{variable}=" in caplog.text
    assert "is ignored: " in caplog.text
    if SETTINGS[name].secret:
        assert value not in caplog.text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("api.example.com", "expected a URL such as"),
        ("https://user:pass@example.com", "credentials in the URL"),
        ("https://example.com/api?key=pass", "a query or fragment is not supported"),
        ("https://example.com/#pass", "a query or fragment is not supported"),
        ("http://exa mple.com", "expected a URL such as"),
        ("https://example.com:70000", "expected a URL such as"),
        ("https://example.com:port", "expected a URL such as"),
        ("https://:443/api", "expected a URL such as"),
        ("https://evil\\@example.com", "expected a URL such as"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "pyproject.toml"])
def test_refused_endpoint_turns_the_library_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str, why: str, source: str
) -> None:
    """A bad endpoint is an error that names it without credentials; the key never goes to the default endpoint."""
    if source == "environment":
        monkeypatch.setenv("THRIVESTACK_ENDPOINT", value)
    else:
        Path("pyproject.toml").write_text(f"[tool.ts_autotrack]\nendpoint = {json.dumps(value)}\n", "utf-8")
    config = load({"api_key": "the-key-of-the-company"}, str(Path.cwd()))
    assert config.off_reason == "bad_endpoint"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "no events are sent: " in record.getMessage()
    assert why in record.getMessage()
    assert "pass" not in record.getMessage()


def test_events_of_a_refused_endpoint_are_counted() -> None:
    """With a bad endpoint, events are dropped as "bad_endpoint", flush() returns False, and one error says why."""
    code = "from ts_autotrack import *; track('e', user_id='u'); print(flush(5), stats().dropped)"
    done = run_python(code, THRIVESTACK_ENDPOINT="api.example.com", THRIVESTACK_API_KEY="the-key")
    assert done.stdout == "False {'bad_endpoint': 1}\n"
    assert done.stderr.count("THRIVESTACK_ENDPOINT='api.example.com' is refused") == 1


@pytest.mark.parametrize(
    ("endpoint", "warnings"),
    [
        ("http://collector.example.com/api", 1),
        ("http://127.0.0.1.example.com", 1),
        ("https://collector.example.com", 0),
        ("http://127.0.0.1:1", 0),
        ("http://[::1]:1", 0),
    ],
)
def test_unencrypted_endpoint_on_another_machine_warns(
    endpoint: str, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain http to another machine is allowed, with one warning."""
    for _ in range(2):
        assert load({"endpoint": endpoint, "api_key": "the-key"}).off_reason is None
    assert caplog.text.count(f"go to {endpoint} unencrypted") == warnings


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"flush_interval": "soon"}, ValueError, r"configure\(flush_interval='soon'\): expected a number of seconds"),
        ({"request_timeout": True}, ValueError, "expected a number of seconds"),
        ({"request_timeout": 0}, ValueError, "of more than 0"),
        ({"outbox": ""}, ValueError, "expected a path"),
        ({"outbox": "a\0b"}, ValueError, "expected a path"),
        ({"outbox": b"/x"}, ValueError, "expected a path"),
        ({"outbox": True}, ValueError, "expected a path"),
        ({"max_queue": 1.5}, ValueError, "a whole number"),
        ({"exporter": "kafka"}, ValueError, "thrivestack, console, jsonl, memory, otlp, none"),
        ({"endpoint": "ftp://x"}, ValueError, "expected a URL such as"),
        (
            {"endpoint": "https://u:p@x"},
            ValueError,
            r"configure\(endpoint='https://\*\*\*@x'\): credentials in the URL",
        ),
        ({"flush_intervall": 1}, TypeError, "no setting 'flush_intervall'. Settings: api_key"),
    ],
)
def test_bad_argument_raises(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    """A bad argument raises at once."""
    with pytest.raises(error, match=message):
        load(settings)


def test_endpoint_may_be_given_in_any_form() -> None:
    """An endpoint may end with a slash or with the track path."""
    for given in ("http://h/api", "http://h/api/", "http://h/api/track", "HTTP://h/api"):
        assert load({"endpoint": given}).server.endpoint == "http://h/api"


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:8787/api", "http://localhost", "http://[::1]:1", "https://localhost:1/x", "http://127.8.0.9"],
)
def test_local_endpoint_needs_no_key(endpoint: str) -> None:
    """An endpoint on this machine needs no key."""
    assert load({"endpoint": endpoint}).off_reason is None
    assert load({"endpoint": "http://127.0.0.1.example.com"}).off_reason == "no_api_key"


def test_environment_alone_is_enough(inspector: Inspector) -> None:
    """THRIVESTACK_ENDPOINT with the inspector's URL is the only setting a process needs."""
    done = run_python(TRACK_ONE, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert (done.stdout, done.stderr) == ("{}\n", done.stderr)
    assert [item["event_name"] for item in inspector.items()] == ["e"]


def test_do_not_track_yields_to_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    """DO_NOT_TRACK=1 disables the library, unless the application itself says otherwise."""
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert load({}).disabled
    assert not load({"disabled": False}).disabled


def test_debug_logs_without_configured_logging(inspector: Inspector) -> None:
    """TS_AUTOTRACK_DEBUG=1 shows deliveries on standard error, for any logging setup of the application."""
    code = "from ts_autotrack import track, flush; track('e', user_id='u', group_id='g'); flush(5)"
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint, TS_AUTOTRACK_DEBUG="1")
    assert "DEBUG ts_autotrack: /track: delivered 1" in done.stderr


def test_working_directory_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed working directory does no harm."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load({}).max_queue == SETTINGS["max_queue"].default
