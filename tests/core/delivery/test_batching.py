"""Batches: their order, limits, paths and intervals."""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Answer, ScriptedServer, wait_until
from tests.core.conftest import account_closes, names
from ts_autotrack import configure, flush, group, identify, track
from ts_autotrack._core.client import client
from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack.typing import Stats

if TYPE_CHECKING:
    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


def test_a_burst_arrives_in_full_batches_and_in_order(inspector: Inspector) -> None:
    """Events of a tight loop all arrive, in order, with distinct ids and increasing timestamps."""
    for number in range(2_500):
        track("e", {"n": number})
    assert flush(20)
    items = inspector.items()
    assert [item["properties"]["n"] for item in items] == list(range(2_500))
    assert len({item["context"]["event_id"] for item in items}) == 2_500
    stamps = [item["timestamp"] for item in items]
    assert stamps == sorted(set(stamps))
    assert account_closes() == Stats(2_500, 2_500, 0, 0, {})


def test_batches_keep_both_limits(server: ScriptedServer) -> None:
    """No request has more than 1,000 items or 2,000,000 bytes, for any mix of sizes."""
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("first")
    wait_until(lambda: server.requests, "the first request")
    for size in [400_000] * 12 + [10] * 3_500 + [1_999_000, 1_999_000]:
        track("e", {"text": "x" * size})
    gate.set()
    assert flush(20)
    assert max(len(request.items) for request in server.requests) == MAX_ITEMS
    assert max(request.size for request in server.requests) <= MAX_BODY
    assert max(request.size for request in server.requests) > MAX_BODY - 5_000
    assert account_closes().delivered == 3_515


def test_an_item_beyond_the_limit_is_dropped_with_a_reason(
    server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """An item larger than a request can never be sent: the item is counted and explained, its neighbours arrive."""
    track("before")
    track("huge", {"text": "x" * MAX_BODY})
    track("after")
    assert flush(10)
    assert names(server.items) == ["before", "after"]
    assert account_closes().dropped == {"too_large": 1}
    assert "event 'huge'" in caplog.text
    assert "a request may have 2000000" in caplog.text


def test_endpoints_keep_their_order(server: ScriptedServer) -> None:
    """identify, group and track go to their own paths, in the order of the calls."""
    identify({"user_email": "a@example.com"})
    group("account_9", {"account_name": "Nine"}, group_type="Workspace")
    track("signed_up")
    track("account_created")
    identify({"user_name": "A"}, user_id=7)
    assert flush(10)
    assert [(request.path, len(request.items)) for request in server.requests] == [
        ("/identify", 1),
        ("/group", 1),
        ("/track", 2),
        ("/identify", 1),
    ]
    first, second, third, _, last = server.items
    assert (first["user_id"], first["traits"]) == ("user_1", {"user_email": "a@example.com"})
    assert second["traits"] == {"account_name": "Nine", "group_type": "Workspace"}
    assert (second["group_id"], second["context"]["group_id"], second["user_id"]) == (
        "account_9",
        "account_9",
        "user_1",
    )
    assert third["context"]["group_id"] == "account_1"
    assert last["user_id"] == "7"


def test_first_events_go_out_at_once(server: ScriptedServer) -> None:
    """With the default interval of a second, a process's first events go out within a tenth of a second."""
    configure(flush_interval=1.0)
    track("warm")  # the first request loads the HTTP client, which takes about as long again
    wait_until(lambda: server.requests, "the first request")
    delays = []
    for number in range(1, 8):
        sent = time.monotonic()
        track(f"e{number}")
        wait_until(lambda n=number: len(server.items) > n, "the event")  # type: ignore[misc]
        delays.append(server.requests[-1].at - sent)
    assert median(delays) < 0.1


def test_later_events_are_batched_by_the_interval(server: ScriptedServer) -> None:
    """After the first seconds of a process, an interval has at most a single batch, unless a full batch waits."""
    client.pacing = Pacing(eager_period=0.0)
    configure(flush_interval=0.4)
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("first")
    wait_until(lambda: server.requests, "the first request")
    track("e")
    gate.set()
    for _ in range(19):
        track("e")
    wait_until(lambda: len(server.items) == 21, "the rest")
    assert server.requests[1].at - server.requests[0].at > 0.3
    assert [len(request.items) for request in server.requests] == [1, 20]
    configure(flush_interval=60)
    for _ in range(3_000):  # some may go out at once, for `configure` wakes the worker; then at least 1,000 wait
        track("e")
    wait_until(lambda: len(server.items) > 1_000, "a full batch")
    assert flush(5)
