"""The account closes: with a full queue, and with many threads."""

from __future__ import annotations

import threading

import pytest

from tests.conftest import Answer, ScriptedServer, wait_until
from tests.core.conftest import account_closes, names
from ts_autotrack import configure, flush, track, track_feature, user_context
from ts_autotrack.typing import Stats

pytestmark = pytest.mark.usefixtures("acting")


def test_full_queue_refuses_the_newest_and_counts(server: ScriptedServer, caplog: pytest.LogCaptureFixture) -> None:
    """Past MAX_QUEUE, new events are refused and counted; waiting events are delivered."""
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    configure(max_queue=10)
    track("first")
    wait_until(lambda: server.requests, "the first request")
    for number in range(50):
        track(f"e{number}")
    gate.set()
    assert flush(5)
    account = account_closes()
    assert account.accepted == 51
    assert account.dropped == {"queue_full": 51 - account.delivered}
    assert names(server.items) == ["first", *(f"e{number}" for number in range(account.delivered - 1))]
    assert 10 <= account.delivered <= 30
    assert "TS_AUTOTRACK_MAX_QUEUE" in caplog.text


def test_account_closes_under_threads(server: ScriptedServer) -> None:
    """Concurrent threads lose no event, and each thread's order is kept."""

    @track_feature("f", capture=["thread", "number"])
    def work(thread: int, number: int) -> None:
        """Do nothing."""

    def run(thread: int) -> None:
        with user_context(f"u{thread}", group_id="g"):
            for number in range(500):
                work(thread, number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert flush(20)
    assert account_closes() == Stats(4_000, 4_000, 0, 0, {})
    for n in range(8):
        mine = [item for item in server.items if item["user_id"] == f"u{n}"]
        assert [item["properties"]["number"] for item in mine] == list(range(500))
        stamps = [item["timestamp"] for item in mine]
        assert stamps == sorted(set(stamps))
