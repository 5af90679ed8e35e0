"""The fixture captured_events in real pytest processes: with xdist, asyncio plugins, and mocks of the HTTP client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ScriptedServer
from ts_autotrack._core.config import load

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """
import asyncio, logging, os, subprocess, sys, threading
import pytest
from ts_autotrack import bind_user, configure, current_user, flush, stats, suppress, track, track_feature, user_context

@track_feature("report_export")
def export(): pass
"""
QUIET = {"THRIVESTACK_API_KEY": "a-key-of-a-developer", "PYTHONDONTWRITEBYTECODE": "1"}


def run_pytest(folder: Path, test: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test file in a pytest process of its own, with a developer's key in the environment."""
    (folder / "test_it.py").write_text(HEAD + test, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n", "utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_AUTOTRACK", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_it.py"],
        cwd=folder,
        env={**kept, **QUIET, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str]) -> int:
    """Return the number of passed tests; fail if others did not pass."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Logging error" not in done.stdout + done.stderr
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None, done.stdout
    return int(found[1])


@pytest.mark.slow
def test_the_plugin_imports_pytest_only(tmp_path: Path) -> None:
    """With a key in the environment, neither the plugin nor the fixture imports the HTTP client or starts a thread."""
    test = """
def test_it(captured_events):
    export()
    assert len(captured_events.unattributed) == 1
    assert "ts_autotrack._core.transports.http" not in sys.modules  # other plugins import httpx itself
    assert threading.active_count() == 1
"""
    assert passed(run_pytest(tmp_path, test)) == 1


@pytest.mark.slow
def test_a_failing_test_shows_the_captured_events(tmp_path: Path) -> None:
    """The report of a failed test has a section with its events; the report of a test without the fixture has none."""
    test = """
def test_it(captured_events):
    with user_context("user_1", group_id="account_1"): export()
    export()
    assert 1 == 2

def test_without():
    assert 1 == 2
"""
    done = run_pytest(tmp_path, test)
    assert done.returncode == 1
    (section,) = re.findall(r"- Captured ts_autotrack events -.*?\n(.*?)\n_____", done.stdout, re.DOTALL)
    assert section.splitlines()[:2] == [
        "Captured events (1):",
        "  feature_used feature=report_export user=user_1 group=account_1 {'action': 'export'}",
    ]
    assert "Without a user, never sent (1):" in section


@pytest.mark.slow
def test_nothing_of_a_test_reaches_the_next_one(tmp_path: Path) -> None:
    """Bindings, events, settings and warnings of a captured test are gone, in any order and under xdist."""
    test = """
@pytest.mark.parametrize("number", range(20))
def test_it(captured_events, number, caplog):
    assert current_user().user_id is None
    assert stats().accepted == 0
    export()
    assert flush() and caplog.text.count("it has no user") == 1
    bind_user(f"user_{number}", group_id="a")
    configure(max_queue=2)
    for _ in range(5): export()
    assert len(captured_events.for_user(f"user_{number}")) == len(captured_events) == 2
"""
    assert passed(run_pytest(tmp_path, test, "-n", "2")) == 20


@pytest.mark.slow
def test_asyncio_plugins_work(tmp_path: Path) -> None:
    """Tests of pytest-asyncio and of anyio, with all of its event loops, see the events of their tasks."""
    test = """
@track_feature("later")
async def later(): pass

async def check(events):
    assert current_user().user_id is None
    bind_user("user_1", group_id="a")
    await later()
    assert events.one("later").user_id == "user_1"

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(3))
async def test_asyncio(captured_events, number):
    await asyncio.create_task(check(captured_events))

@pytest.mark.anyio
@pytest.mark.parametrize("number", range(3))
async def test_anyio(captured_events, anyio_backend, number):
    await check(captured_events)
"""
    assert passed(run_pytest(tmp_path, test)) == 9


@pytest.mark.slow
def test_mocks_of_the_http_client_see_no_request(tmp_path: Path) -> None:
    """pytest-httpx, respx and vcrpy see the application's requests only, also beside a worker that runs already."""
    test = """
import httpx, respx, vcr

@pytest.fixture(scope="session", autouse=True)
def busy_application():
    configure(endpoint=os.environ["SERVER"], flush_interval=0.001)
    for _ in range(3): track("of_the_session", user_id="u")
    yield
    assert flush(10), stats()
    assert stats().delivered == 3

def use(events):
    with user_context("user_1", group_id="a"):
        for _ in range(1_500): export()
    assert flush(5) and len(events) == 1_500
    assert httpx.get("https://example.com/reports").status_code == 200

def test_pytest_httpx(captured_events, httpx_mock):
    httpx_mock.add_response(url="https://example.com/reports")
    use(captured_events)
    assert len(httpx_mock.get_requests()) == 1

def test_respx(captured_events):
    with respx.mock(assert_all_called=True) as mock:
        route = mock.get("https://example.com/reports").respond(200)
        use(captured_events)
        assert (route.call_count, len(mock.calls)) == (1, 1)

def test_vcrpy(captured_events, tmp_path):
    (tmp_path / "cassette.yaml").write_text('''
version: 1
interactions:
- request: {method: GET, uri: "https://example.com/reports", body: "", headers: {}}
  response: {status: {code: 200, message: OK}, headers: {}, body: {string: ""}}
''')
    with vcr.use_cassette(str(tmp_path / "cassette.yaml"), record_mode="none") as cassette:
        use(captured_events)
        assert cassette.play_count == 1
"""
    server = ScriptedServer()
    try:
        assert passed(run_pytest(tmp_path, test, SERVER=server.endpoint)) == 3
    finally:
        server.close()
    assert [item["event_name"] for item in server.items] == ["of_the_session"] * 3


@pytest.mark.slow
def test_events_under_pytest_leave_this_machine_only_if_allowed(tmp_path: Path) -> None:
    """A key in a developer's shell sends nothing: events are dropped as "in_tests", in child processes, too."""
    test = """
CHILD = "from ts_autotrack import *; track('e', user_id='u'); flush(1); print(stats().dropped, stats().pending)"

def child():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True)
    return done.stdout, done.stderr.count("no events are sent: pytest runs")

def test_dropped(caplog):
    for _ in range(2): track("e", user_id="u")
    assert stats().dropped == {"in_tests": 2} and flush()
    assert caplog.text.count("no events are sent: pytest runs") == 1
    assert "captured_events" in caplog.text and "TS_AUTOTRACK_IN_TESTS=1" in caplog.text
    assert "ts_autotrack._core.transports.http" not in sys.modules
    assert child() == ("{'in_tests': 1} 0\\\\n", 1)

def test_allowed(monkeypatch):
    monkeypatch.setenv("TS_AUTOTRACK_IN_TESTS", "1")
    monkeypatch.setenv("THRIVESTACK_ENDPOINT", "https://127.0.0.1.nip.invalid")
    assert child() == ("{} 1\\\\n", 0)
    configure(in_tests=True, endpoint="https://127.0.0.1.nip.invalid", exit_timeout=0)
    track("e", user_id="u")
    assert stats().pending == 1

def test_other_exporters_are_not_affected(monkeypatch):
    monkeypatch.setenv("TS_AUTOTRACK_EXPORTER", "console")
    assert child() == ("{} 0\\\\n", 0)
"""
    assert passed(run_pytest(tmp_path, test.replace("\\\\n", "\\n"))) == 3


OLDER = """
import os, pluggy
os.environ.pop("PYTEST_VERSION", None)
newer = pluggy.HookimplMarker.__call__

def older(self, function=None, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None):
    return newer(self, function, hookwrapper, optionalhook, tryfirst, trylast, specname)

pluggy.HookimplMarker.__call__ = older
"""
"""A plugin that takes from pytest what came with pytest 8.2 and pluggy 1.2."""


@pytest.mark.slow
def test_the_plugin_works_with_an_older_pytest(tmp_path: Path) -> None:
    """Failed tests show their events, and nothing is sent, not even if an import tracks the first event."""
    (tmp_path / "older.py").write_text(OLDER, "utf-8")
    test = """
track("imported", user_id="u")

def test_dropped():
    track("tested", user_id="u")
    assert stats().dropped == {"in_tests": 2}

def test_failed(captured_events):
    track("captured", user_id="u")
    assert 1 == 2
"""
    plugins = ("-p", "older", "-p", "ts_autotrack.pytest_plugin")
    done = run_pytest(tmp_path, test, *plugins, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "Captured ts_autotrack events" in done.stdout


def test_an_older_pytest_is_noticed_by_the_running_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pytest before 8.2 sets PYTEST_CURRENT_TEST only; an endpoint on this machine is not affected."""
    monkeypatch.delenv("TS_AUTOTRACK_IN_TESTS")
    monkeypatch.delenv("PYTEST_VERSION", raising=False)
    assert load({"api_key": "k"}).off_reason == "in_tests"
    assert load({"api_key": "k", "in_tests": True}).off_reason is None
    assert load({"endpoint": "http://localhost:8787"}).off_reason is None
    assert load({"api_key": "k", "disabled": True}).off_reason == "disabled"
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert load({"api_key": "k"}).off_reason is None
