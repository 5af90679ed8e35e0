"""Where settings come from, what wins, and what a bad one leads to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from ts_autotrack import configure, flush, stats, track, track_feature, user_context
from ts_autotrack._core.config import SETTINGS, load
from ts_autotrack._core.contract import DEFAULT_ENDPOINT

if TYPE_CHECKING:
    from tests.conftest import Inspector

TRACK_ONE = "from ts_autotrack import track, flush, stats; track('e', user_id='u'); flush(5); print(stats().dropped)"


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """configure() wins over the environment, that over the nearest pyproject.toml, that over the default."""
    Path("pyproject.toml").write_text(
        "[tool.ts_autotrack]\nflush_interval = 3\nmax_queue = 30\nexit_timeout = 0.5\nbaggage = false\n", "utf-8"
    )
    Path("deeper").mkdir()
    monkeypatch.setenv("TS_AUTOTRACK_FLUSH_INTERVAL", "2")
    monkeypatch.setenv("TS_AUTOTRACK_MAX_QUEUE", "20")
    config = load({"flush_interval": 1}, str(Path("deeper").absolute()))
    assert (config.flush_interval, config.max_queue, config.exit_timeout, config.baggage) == (1.0, 20, 0.5, False)
    assert config.server.endpoint == DEFAULT_ENDPOINT
    assert config.server.request_timeout == SETTINGS["request_timeout"].default


def test_the_nearest_pyproject_counts() -> None:
    """A project without settings of ours hides those of a folder above."""
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
    """A pyproject.toml that cannot be used is said to be ignored, and everything else goes on."""
    Path("pyproject.toml").write_text(text, "utf-8")
    assert load({}).max_queue == SETTINGS["max_queue"].default
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
        ("TS_AUTOTRACK_BAGGAGE", "perhaps", "baggage"),
        ("THRIVESTACK_ENDPOINT", "api.example.com", "endpoint"),
        ("THRIVESTACK_ENDPOINT", "https://user:pass@example.com", "endpoint"),
        ("THRIVESTACK_ENDPOINT", "http://exa mple.com", "endpoint"),
        ("THRIVESTACK_API_KEY", "two words", "api_key"),
        ("THRIVESTACK_AUTH_TOKEN", "schlüssel", "auth_token"),
    ],
)
def test_bad_environment_warns_and_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str, name: str
) -> None:
    """A bad variable is named, with what is good for it; the default takes its place; no credential is shown."""
    monkeypatch.setenv(variable, value)
    config = load({})
    assert getattr(config if hasattr(config, name) else config.server, name) == SETTINGS[name].default
    assert f"{variable}=" in caplog.text
    assert "is ignored: " in caplog.text
    if SETTINGS[name].secret:
        assert value not in caplog.text
    assert "user:pass" not in caplog.text


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
        ({"exporter": "kafka"}, ValueError, "thrivestack, console, jsonl, none"),
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
    """A bad argument raises at once, and nothing is changed."""
    with pytest.raises(error, match=message):
        load(settings)


def test_endpoint_may_be_given_in_any_form() -> None:
    """A trailing slash or the track path itself do no harm."""
    for given in ("http://h/api", "http://h/api/", "http://h/api/track"):
        assert load({"endpoint": given}).server.endpoint == "http://h/api"


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:8787/api", "http://localhost", "http://[::1]:1", "https://localhost:1/x"]
)
def test_local_endpoint_needs_no_key(endpoint: str) -> None:
    """An endpoint on this machine is all that an app needs."""
    assert load({"endpoint": endpoint}).off_reason is None
    assert load({"endpoint": "http://127.0.0.1.example.com"}).off_reason == "no_api_key"


def test_environment_alone_is_enough(inspector: Inspector) -> None:
    """THRIVESTACK_ENDPOINT pointing at the inspector is the only setting that a process needs."""
    done = run_python(TRACK_ONE, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert (done.stdout, done.stderr) == ("{}\n", done.stderr)
    assert [item["event_name"] for item in inspector.items()] == ["e"]


INERT = """
import sys, threading
before = set(sys.modules)
from ts_autotrack import track, track_feature, user_context, flush, stats, shutdown
@track_feature("f", capture=["x"])
def f(x): pass
with user_context("u", group_id="g"):
    for n in range(5): f(n)
    with track_feature("b") as use: use.set(a=1)
    track("e")
print(flush(1), shutdown(1), dict(stats().dropped), threading.active_count())
print([m for m in ("httpx", "orjson", "sqlite3", "wrapt", "opentelemetry") if m in sys.modules and m not in before])
"""


@pytest.mark.parametrize(
    ("environment", "reason", "warnings"),
    [
        ({}, "no_api_key", 1),
        ({"TS_AUTOTRACK_EXPORTER": "none"}, "disabled", 0),
        ({"TS_AUTOTRACK_DISABLED": "1", "THRIVESTACK_API_KEY": "k"}, "disabled", 0),
        ({"DO_NOT_TRACK": "1", "THRIVESTACK_API_KEY": "k"}, "disabled", 0),
    ],
)
def test_off_means_no_thread_no_import_one_warning(environment: dict[str, str], reason: str, warnings: int) -> None:
    """Without a key, or disabled, the library is inert: events are counted, nothing is started or loaded."""
    done = run_python(INERT, **environment)
    assert done.stdout == f"True True {{'{reason}': 7}} 1\n[]\n", done.stderr
    assert len(done.stderr.splitlines()) == warnings, done.stderr
    if warnings:
        assert "Set THRIVESTACK_API_KEY, or THRIVESTACK_ENDPOINT" in done.stderr


def test_configure_turns_on_and_off(inspector: Inspector) -> None:
    """An application may switch the library off and on again at any time."""
    with user_context("u", group_id="g"):
        track("on")
        configure(disabled=True)
        track("off")
        configure(disabled=False)
        track("on again")
    assert flush(10)
    assert [item["event_name"] for item in inspector.items()] == ["on", "on again"]
    assert stats().dropped == {"disabled": 1}


def test_calls_that_fail_while_off_are_no_events() -> None:
    """A call that would have made no event is not counted as one that was skipped."""
    configure(disabled=True)

    @track_feature("f")
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert stats().accepted == 0


def test_do_not_track_yields_to_configure(monkeypatch: pytest.MonkeyPatch) -> None:
    """DO_NOT_TRACK=1 disables, unless the application itself says otherwise."""
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    assert load({}).disabled
    assert not load({"disabled": False}).disabled


def test_debug_logs_without_configured_logging(inspector: Inspector) -> None:
    """TS_AUTOTRACK_DEBUG=1 shows deliveries on standard error, whatever the app's logging does."""
    code = "from ts_autotrack import track, flush; track('e', user_id='u', group_id='g'); flush(5)"
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint, TS_AUTOTRACK_DEBUG="1")
    assert "DEBUG ts_autotrack: /track: delivered 1" in done.stderr


def test_working_directory_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose working directory was removed is not harmed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load({}).max_queue == SETTINGS["max_queue"].default


@track_feature("bare")
def bare() -> None:
    """Do nothing."""


def test_events_left_by_another_thread_while_settings_are_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that another thread left before the library found itself off is counted as the others are."""
    from ts_autotrack._core import config  # noqa: PLC0415
    from ts_autotrack._core.client import client  # noqa: PLC0415

    real = config.load

    def slow(arguments: dict[str, object]) -> Any:
        with user_context("u", group_id="g"):
            bare()  # while the first caller is still reading
        return real(arguments)

    monkeypatch.setattr("ts_autotrack._core.client.load", slow)
    monkeypatch.setenv("TS_AUTOTRACK_DISABLED", "1")
    client.reset()
    with user_context("u", group_id="g"):
        bare()
    assert stats().dropped == {"disabled": 2}
    assert stats().accepted == 2
