"""Items that make their batch fail, endpoints that fail alone, and batches that take too long."""

from __future__ import annotations

import random
import time
import tracemalloc
from _thread import RLock
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.core.delivery.test_exporter import skip_pauses
from ts_autotrack._core.contract import MAX_ITEMS
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.backoff import Backoff, Pacing
from ts_autotrack._core.delivery.endpoint import MIN_TIMED_OUT
from ts_autotrack._core.delivery.exporter import Exporter
from ts_autotrack._core.delivery.queue import MAX_QUEUED, MemoryQueue
from ts_autotrack._core.outbox.outbox import Outbox
from ts_autotrack.typing import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ts_autotrack._core.delivery.queue import EventQueue, Item

OK = Response(200, b'{"success": true}')
BAD_ANSWERS = [Response(0, b"ReadError: reset"), Response(0, b"ReadTimeout: "), Response(403, b"blocked by a rule")]
BAD_ANSWERS += [Response(404), Response(500, b"boom"), Response(200, b"<html>"), Response(200, b'{"success":false}')]


class Rig:
    """A queue, an exporter and a server that answers by a function; `rounds` skips all pauses."""

    def __init__(self, answer: Callable[[str, Sequence[bytes]], Response], outbox: Path | None = None) -> None:
        self.answer = answer
        self.accepted: list[bytes] = []
        self.requests: list[tuple[str, int]] = []
        self.counters = counters = Counters()
        self.queue: EventQueue = MemoryQueue()
        if outbox is not None:
            self.queue = Outbox(str(outbox), 1_000_000_000, per_event=True, counters=counters, lock=RLock())
        self.exporter = Exporter(self.queue, self.counters, Pacing(), partial(Backoff, jitter=lambda: 1.0))
        self.number = 0

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Answer."""
        del timeout
        self.requests.append((path, len(bodies)))
        response = self.answer(path, bodies)
        self.accepted += bodies if response is OK else ()
        return response

    def close(self) -> None:
        """Do nothing."""

    def put(self, count: int, path: str = "/track", text: str = "fine", bad: Sequence[int] = ()) -> list[bytes]:
        """Track items; those at the positions `bad` are at fault. Return the others."""
        items: list[Item] = []
        for position in range(count):
            self.number += 1
            kind = "bad" if position in bad else text
            items.append((path, b'{"n":%d,"text":"%s"}' % (self.number, kind.encode()), self.number))
        self.queue.put(items)
        return [body for _, body, _ in items if b"bad" not in body]

    def rounds(self, count: int) -> int:
        """Export `count` times; return the number of requests."""
        before = len(self.requests)
        for _ in range(count):
            self.exporter.export(self, 1.0)
            skip_pauses(self.exporter)
        return len(self.requests) - before


def failing_at(response: Response) -> Callable[[str, Sequence[bytes]], Response]:
    """Return a server that gives this answer to all batches with a bad item."""
    return lambda _, bodies: response if any(b"bad" in body for body in bodies) else OK


@pytest.mark.parametrize("response", BAD_ANSWERS)
def test_item_at_fault_is_found_whatever_the_answer_is(response: Response) -> None:
    """One item that makes its batch fail costs its neighbours nothing, and is rejected with the words of the answer."""
    rig = Rig(failing_at(response))
    clean = rig.put(1_000, bad=[700])
    requests = rig.rounds(30)
    assert sorted(rig.accepted) == sorted(clean)
    assert requests < 60
    for _ in range(10):
        clean += rig.put(10)
        rig.rounds(2)
    assert (rig.counters.delivered, rig.counters.rejected, rig.queue.pending) == (1_099, 1, 0)
    assert sorted(rig.accepted) == sorted(clean)
    assert b"bad" in rig.counters.rejects[0].item.encode()
    assert rig.counters.rejects[0].reason.startswith(response.body.decode() if not response.status else "")


@pytest.mark.parametrize("count", [1, 2, 5, 2_000])
@pytest.mark.parametrize("response", BAD_ANSWERS)
def test_nothing_is_rejected_while_nothing_is_accepted(response: Response, count: int) -> None:
    """In an outage nothing is rejected, each pause allows a request or two, and all items arrive afterwards."""
    rig = Rig(lambda *_: response)
    clean = rig.put(count)
    assert rig.rounds(50) <= (100 if count == 2 else 55)
    assert (rig.counters.delivered, rig.counters.rejected, rig.queue.pending) == (0, 0, count)
    rig.answer = lambda *_: OK
    rig.rounds(5)
    assert sorted(rig.accepted) == sorted(clean)
    assert sum(a > b for a, b in pairwise(rig.accepted)) <= 4 + count // 10


def test_several_items_at_fault_in_a_row_do_not_pass_for_an_outage() -> None:
    """Ten bad items at the head of the queue are found by probing other items."""
    rig = Rig(failing_at(Response(500)))
    clean = rig.put(100, bad=range(10))
    rig.rounds(200)
    assert sorted(rig.accepted) == sorted(clean)
    for _ in range(60):
        rig.put(3)
        rig.rounds(3)
    assert (rig.counters.rejected, rig.queue.pending) == (10, 0)
    assert len(rig.requests) < 1_100


def test_rejections_of_all_items_end_after_twenty() -> None:
    """A server that refuses everything rejects twenty items; then single items probe the server."""
    rig = Rig(lambda *_: Response(400, b"archived"))
    rig.put(1_000)
    assert rig.rounds(1) < 70
    assert rig.rounds(30) <= 30
    assert (rig.counters.rejected, rig.queue.pending) == (20, 980)
    rig.answer = lambda *_: OK
    rig.rounds(5)
    assert (rig.counters.delivered, rig.queue.pending) == (980, 0)


def test_other_endpoints_go_around_one_that_is_away() -> None:
    """Events for other endpoints pass those of an endpoint that fails, which arrive in their order later."""
    rig = Rig(lambda path, _: Response(500) if path == "/identify" else OK)
    waiting: list[bytes] = []
    for _ in range(300):
        waiting += rig.put(1, "/identify")
        rig.put(9)
        rig.rounds(1)
    assert len(rig.accepted) == 2_700
    assert rig.counters.rejected == 0
    assert sum(path == "/identify" for path, _ in rig.requests) <= 310
    rig.answer = lambda *_: OK
    rig.rounds(5)
    assert rig.queue.pending == 0
    late = [body for body in rig.accepted if body in waiting]
    assert sum(a > b for a, b in pairwise(late)) <= 3  # items sent alone by the search


def test_endpoint_that_is_away_leaves_space_for_others() -> None:
    """Waiting events of an endpoint that is away take none of the queue's usual capacity."""
    rig = Rig(lambda path, _: Response(500) if path == "/identify" else OK)
    for _ in range(40):
        rig.put(100, "/identify")
        rig.put(10)
        rig.rounds(2)
    assert len(rig.accepted) == 400
    assert rig.queue.capacity >= MAX_QUEUED - MAX_ITEMS


def test_large_items_of_an_endpoint_that_is_away_stay_on_disk(tmp_path: Path) -> None:
    """However long an endpoint is away, the cursor of an outbox holds few megabytes of its items."""
    rig = Rig(lambda *_: Response(500), tmp_path)
    tracemalloc.start()
    try:
        for _ in range(12):
            rig.put(100, text="large" * 10_000)
            rig.rounds(3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000
    rig.answer = lambda *_: OK
    rig.rounds(30)
    assert (rig.queue.pending, rig.counters.delivered) == (0, 1_200)
    rig.queue.close()


def test_timeouts_shrink_the_batch_and_successes_grow_it() -> None:
    """A server that needs too long for a full batch gets smaller ones, which grow again after twenty successes."""
    slow = Response(0, b"ReadTimeout: the request took too long")
    rig = Rig(lambda _, bodies: slow if len(bodies) > 70 else OK)
    rig.put(1_000)
    rig.rounds(20)
    sizes = [count for _, count in rig.requests]
    assert sizes[:6] == [1_000, 500, 250, 125, 62, 62]
    assert min(sizes[:-1]) >= MIN_TIMED_OUT
    assert len(rig.accepted) == 1_000
    rig.answer = lambda *_: OK
    for _ in range(90):
        rig.put(1_000)
        rig.rounds(1)
    assert rig.requests[-1] == ("/track", MAX_ITEMS)


def test_retry_after_applies_to_all_endpoints() -> None:
    """A `Retry-After` of one endpoint holds requests to every endpoint back."""
    rig = Rig(lambda *_: Response(503, retry_after=30.0))
    rig.put(1, "/identify")
    rig.put(1)
    rig.exporter.export(rig, 1.0)
    rig.exporter.skip_backoff()
    rig.exporter.export(rig, 1.0)
    assert len(rig.requests) == 1
    assert rig.exporter.blocked
    assert rig.exporter.next_attempt_at > time.monotonic() + 25


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_server_that_fails_at_random_costs_no_item(share: float) -> None:
    """An outage of a part of the requests, whichever, rejects nothing: other items fail, too."""
    chance = random.Random(7)  # noqa: S311 - no secret
    rig = Rig(lambda *_: Response(503) if chance.random() < share else OK)
    clean: list[bytes] = []
    for _ in range(400):
        clean += rig.put(5)
        rig.rounds(2)
    rig.answer = lambda *_: OK
    rig.rounds(20)
    assert (rig.counters.rejected, rig.queue.pending) == (0, 0)
    assert sorted(rig.accepted) == sorted(clean)


def test_equal_items_are_rejected_together() -> None:
    """Two equal items, as a crash in the middle of a merge leaves them, are both refused and both counted."""
    rig = Rig(failing_at(Response(400)))
    item = ("/track", b'{"n":1,"text":"bad"}', 1)
    rig.queue.put([item, ("/track", b'{"n":2,"text":"fine"}', 2), item])
    rig.rounds(5)
    assert (rig.counters.delivered, rig.counters.rejected, rig.queue.pending) == (1, 2, 0)


def test_queue_that_cannot_be_read_makes_the_exporter_wait() -> None:
    """A queue with items that yields none, as an outbox on a failing disk, is read once a second."""

    class Unreadable(MemoryQueue):
        def peek(self, most: int) -> list[Item]:
            del most
            return []

    queue = Unreadable()
    queue.put([("/track", b"{}", 1)])
    exporter = Exporter(queue, Counters(), Pacing())
    exporter.export(Rig(lambda *_: OK), 1.0)
    assert exporter.waiting
