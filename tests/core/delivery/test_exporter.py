"""The exporter alone, with a fake transport: verdicts, pauses, and any history of answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.answers import action_for
from ts_autotrack._core.delivery.backoff import Backoff, Pacing
from ts_autotrack._core.delivery.exporter import Exporter
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack.typing import Response

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response(200), "acknowledge"),
        (Response(202), "acknowledge"),
        (Response(200, content_type="TEXT/HTML; charset=utf-8"), "misconfigured"),
        (Response(200, b"\n<!doctype html>"), "misconfigured"),
        (Response(400, b"<html><center>The plain HTTP request was sent to HTTPS port"), "misconfigured"),
        (Response(422, content_type="text/html"), "misconfigured"),
        (Response(413, content_type="text/html"), "split"),
        (Response(502, content_type="text/html"), "retry"),
        (Response(0), "retry"),
        (Response(408), "retry"),
        (Response(429), "wait"),
        (Response(500), "retry"),
        (Response(599), "retry"),
        (Response(401), "unauthorized"),
        (Response(403), "forbidden"),
        (Response(200, b'{"success": false, "message": "quota exceeded"}'), "retry"),
        (Response(200, b' {"message": "no", "success" : false}'), "retry"),
        (Response(200, b'{"success": true, "message": "not \\"success\\": false"}'), "acknowledge"),
        (Response(200, b'{"eventId": "evt_1"}'), "acknowledge"),
        (Response(204), "acknowledge"),
        (Response(203), "retry"),
        (Response(207, b'{"success": true}'), "retry"),
        (Response(100), "retry"),
        (Response(400), "split"),
        (Response(413), "split"),
        (Response(422), "split"),
        (Response(301), "misconfigured"),
        (Response(404), "misconfigured"),
    ],
)
def test_each_answer_has_its_treatment(response: Response, expected: str) -> None:
    """Each answer has its verdict in the table of answers."""
    assert action_for(response) == expected


class FakeTransport:
    """Answers with the scripted statuses, then with 200; keeps the requests."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.accepted: list[bytes] = []
        self.alone: set[bytes] = set()  # items sent alone: they may arrive after newer ones
        self.requests: list[tuple[str, list[bytes]]] = []

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Answer."""
        del timeout
        self.requests.append((path, list(bodies)))
        self.alone.update(bodies if len(bodies) == 1 else ())
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 413 and len(bodies) == 1:
            status = 200
        if any(b"poison" in body for body in bodies):
            status = 400
        if status == 200:
            self.accepted.extend(bodies)
        return Response(status)

    def close(self) -> None:
        """Do nothing."""


def skip_pauses(exporter: Exporter) -> None:
    """Make all attempts due now."""
    for endpoint in exporter._endpoints.values():
        endpoint.backoff.next_attempt_at = 0.0
        for isolated in endpoint.isolated.values():
            isolated.retry_at = 0.0
    exporter._forbidden_until = 0.0


@pytest.mark.parametrize(
    ("status", "pauses"),
    [(503, [0.5, 1, 2, 4, 8, 16, 32, 60, 60]), (0, [0.5, 1, 2]), (401, [60, 60]), (302, [60, 60])],
)
def test_pauses_between_attempts(status: int, pauses: list[float]) -> None:
    """Pauses grow up to a minute while the server is away, and are a minute if only an operator can help."""
    backlog = MemoryQueue()
    exporter = Exporter(backlog, Counters(), Pacing(), lambda pacing: Backoff(pacing, jitter=lambda: 1.0))
    for _ in range(2):
        backlog.put([("/track", b"{}", 1)])
        for pause in pauses:
            skip_pauses(exporter)
            before = time.monotonic()
            exporter.export(FakeTransport([status]), 1.0)
            assert pause <= exporter.next_attempt_at - before < pause + 0.4
        skip_pauses(exporter)
        exporter.export(FakeTransport([]), 1.0)  # a success resets the pauses
        assert not backlog.pending


sizes = st.sampled_from([1, 10, 400_000, 1_000_000, 1_999_990])
item_kinds = st.tuples(st.sampled_from(["/track", "/identify"]), sizes, st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(item_kinds, max_size=25), st.lists(st.sampled_from([200, 413, 429, 500, 0, 401]), max_size=8))
def test_any_history_keeps_limits_order_and_account(kinds: list[tuple[str, int, bool]], statuses: list[int]) -> None:
    """For any items and answers: limits hold, order is kept, nothing is lost, only poisoned items are rejected."""
    items = [
        (path, (b"poison" if poison else b"") + str(n).encode() + b"x" * (size - 10), n)
        for n, (path, size, poison) in enumerate(kinds)
    ]
    backlog, counts, transport = MemoryQueue(), Counters(), FakeTransport(statuses)
    backlog.put(items)
    exporter = Exporter(backlog, counts, Pacing(), lambda pacing: Backoff(pacing, jitter=lambda: 1.0))
    for _ in range(200):
        exporter.export(transport, 1.0)
        skip_pauses(exporter)
        if not backlog.pending:
            break
    clean = [body for _, body, _ in items if b"poison" not in body]
    assert sorted(transport.accepted) == sorted(clean)
    together = [body for body in transport.accepted if body not in transport.alone]
    assert together == [body for body in clean if body not in transport.alone]
    assert (counts.delivered, counts.rejected) == (len(clean), len(items) - len(clean))
    for path, bodies in transport.requests:
        assert len(bodies) <= MAX_ITEMS
        assert len(bodies) == 1 or sum(map(len, bodies)) + len(bodies) + 1 <= MAX_BODY
        assert {where for where, body, _ in items if body in bodies} == {path}


@pytest.mark.parametrize("status", [200, 400])
def test_an_event_is_counted_before_it_leaves_the_queue(status: int) -> None:
    """Once nothing is pending, the account holds all deliveries and rejections: flush() may return at that moment."""

    class Observed(MemoryQueue):
        def acknowledge(self, count: int, passed: Sequence[int] = ()) -> None:
            super().acknowledge(count, passed)
            settled.append((self.pending, counts.delivered + counts.rejected))

    settled: list[tuple[int, int]] = []
    backlog, counts = Observed(), Counters()
    exporter = Exporter(backlog, counts, Pacing(), lambda pacing: Backoff(pacing, jitter=lambda: 1.0))
    backlog.put([("/track", b'"poison"' if status == 400 else b"{}", 1), ("/track", b"{}", 2)])
    while backlog.pending:
        skip_pauses(exporter)
        exporter.export(FakeTransport([]), 1.0)
    assert {pending + counted for pending, counted in settled} == {2}
