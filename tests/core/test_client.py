"""The client switched off and on, and started under difficulties."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from ts_autotrack import configure, flush, stats, track, track_feature, user_context
from ts_autotrack._core import config
from ts_autotrack._core.client import client

if TYPE_CHECKING:
    from tests.conftest import Inspector


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
        ({"THRIVESTACK_API_KEY": "k", "THRIVESTACK_ENDPOINT": "nonsense"}, "bad_endpoint", 1),
        ({"TS_AUTOTRACK_EXPORTER": "none"}, "disabled", 0),
        ({"TS_AUTOTRACK_DISABLED": "1", "THRIVESTACK_API_KEY": "k"}, "disabled", 0),
        ({"DO_NOT_TRACK": "1", "THRIVESTACK_API_KEY": "k"}, "disabled", 0),
    ],
)
def test_off_means_no_thread_no_import_one_warning(environment: dict[str, str], reason: str, warnings: int) -> None:
    """Without a key or a good endpoint, or disabled, the library is inert: events are counted, no thread is started, no
    module loaded. flush() is False if that is a mistake.
    """
    done = run_python(INERT, **environment)
    assert done.stdout == f"{not warnings} True {{'{reason}': 7}} 1\n[]\n", done.stderr
    assert len(done.stderr.splitlines()) == warnings, done.stderr
    if warnings:
        assert "Set THRIVESTACK_API_KEY, or THRIVESTACK_ENDPOINT" in done.stderr or "is refused" in done.stderr


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
    """A call which would have made no event is not counted as disabled."""
    configure(disabled=True)

    @track_feature("f")
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert stats().accepted == 0


@pytest.mark.usefixtures("inspector")
def test_accepted_counts_each_event_once_while_events_move() -> None:
    """`accepted` neither goes down nor beyond the number of calls begun, while a thread drains."""
    begun = [0]

    def run() -> None:
        for number in range(6_000):
            begun[0] = number + 1
            track("event", user_id="u")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=run)
    thread.start()
    seen, wrong = 0, []
    while thread.is_alive():
        accepted, latest = stats().accepted, begun[0]
        if not seen <= accepted <= latest:
            wrong.append((seen, accepted, latest))
        seen = accepted
    sys.setswitchinterval(interval)
    assert wrong == []
    assert stats().accepted == 6_000


@track_feature("bare")
def bare() -> None:
    """Do nothing."""


def test_events_left_by_another_thread_while_settings_are_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record left by another thread before the library found its switch off is counted as disabled, too."""
    real = config.load

    def other() -> None:
        with user_context("u", group_id="g"):
            bare()

    def slow(arguments: dict[str, object]) -> Any:
        thread = threading.Thread(target=other)  # while the first caller is still reading the settings
        thread.start()
        thread.join()
        return real(arguments)

    monkeypatch.setattr("ts_autotrack._core.client.load", slow)
    monkeypatch.setenv("TS_AUTOTRACK_DISABLED", "1")
    client.reset()
    with user_context("u", group_id="g"):
        bare()
    assert stats().dropped == {"disabled": 2}
    assert stats().accepted == 2


def test_settings_that_cannot_be_read_are_tried_again(inspector: Inspector) -> None:
    """If reading the settings fails unexpectedly, the event is kept and the application goes on."""
    code = """
import os, io, builtins
real, failures = builtins.open, [MemoryError("no luck")]
def flaky(path, *args):
    if failures and str(path).endswith("pyproject.toml"): raise failures.pop()
    return real(path, *args)
builtins.open = flaky
import ts_autotrack
from ts_autotrack._core import diagnostics
ts_autotrack.track("first", user_id="u")
ts_autotrack.track("second", user_id="u")
print(ts_autotrack.flush(5), ts_autotrack.stats().delivered, diagnostics.faults.read())
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "True 2 1\n", done.stderr
