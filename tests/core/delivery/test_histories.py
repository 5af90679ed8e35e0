"""Random histories of tracking, committing, answers, crashes and restarts, and their invariants."""

from __future__ import annotations

import shutil
import tempfile
from _thread import RLock
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.delivery.test_exporter import skip_pauses
from ts_autotrack._core.capture.buffer import Buffer
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.backoff import Backoff, Pacing
from ts_autotrack._core.delivery.drainer import Drainer
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.delivery.endpoint import MAX_FAILURES_ALONE
from ts_autotrack._core.delivery.exporter import Exporter
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.identity.scope import Scope
from ts_autotrack._core.outbox.outbox import Outbox
from ts_autotrack.typing import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack._core.delivery.queue import EventQueue, Item


LOST_ANSWER = -1
"""An answer of the tests: the server took the items, and the connection broke before the response."""
LIMIT = 400_000


class Server:
    """A transport with scripted answers, which refuses poisoned items, fails at others, and records accepted items."""

    def __init__(self) -> None:
        self.well = False  # True: accepts everything
        self.failed: Counter[bytes] = Counter()  # failures of items alone
        self.alone: set[bytes] = set()  # items sent alone
        self.script: list[int] = []
        self.accepted: list[bytes] = []
        self.refused: set[bytes] = set()
        self.doubtful: set[bytes] = set()  # accepted items whose answer was lost
        self.requests: list[list[bytes]] = []

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Answer."""
        del path, timeout
        self.requests.append(list(bodies))
        self.alone.update(bodies if len(bodies) == 1 else ())
        status = self.script.pop(0) if self.script else 200
        if not self.well and any(b"crash" in body for body in bodies):
            status = 500
        if status >= 500 or status in (0, 401, 429):
            self.failed.update(bodies if len(bodies) == 1 else ())
        if status in (200, LOST_ANSWER):
            if not self.well and (poisoned := [body for body in bodies if b"poison" in body]):
                self.refused.update(poisoned if len(bodies) == 1 else ())
                return Response(422, b"poison")
            self.accepted += bodies
            self.doubtful.update(bodies if status == LOST_ANSWER else ())
            status = max(status, 0)
        elif status == 413 and len(bodies) == 1:
            return self.send("", bodies, 0)
        return Response(status)

    def close(self) -> None:
        """Do nothing."""


class Interruptible(Outbox):
    """An outbox with Ctrl-C pressed during its work."""

    interrupt = ""

    def put(self, items: list[Item]) -> None:
        """Keep the items, with an interrupt before or after."""
        when, self.interrupt = self.interrupt, ""
        if when == "before":
            raise KeyboardInterrupt
        super().put(items)
        if when == "after":
            raise KeyboardInterrupt


class Histories(RuleBasedStateMachine):
    """A series of processes in front of a server."""

    @initialize(durable=st.booleans(), each=st.booleans())
    def begin(self, *, durable: bool, each: bool) -> None:
        """Start the first process."""
        self.durable, self.each = durable, each
        self.directory = tempfile.mkdtemp()
        self.server = Server()
        self.number = 0
        self.expected: set[int] = set()
        self.at_risk: set[int] = set()  # tracked, not committed: a crash may lose these events
        self.start()

    def start(self) -> None:
        """Start a process."""
        self.buffer, self.counts = Buffer(), Counters()
        lock = RLock()
        self.outbox = Interruptible(self.directory, LIMIT, per_event=self.each, counters=self.counts, lock=lock)
        self.backlog: EventQueue = self.outbox if self.durable else MemoryQueue()
        self.drainer = Drainer(self.buffer, Encoder(self.counts), self.backlog, self.counts, lock)
        self.exporter = Exporter(self.backlog, self.counts, Pacing(), partial(Backoff, jitter=lambda: 1.0))
        self.scope = Scope("u", "g")
        self.accepted = self.full = 0

    @rule(
        count=st.integers(1, 40), size=st.sampled_from([0, 10, 5_000]), bad=st.sampled_from(["", "", "poison", "crash"])
    )
    def track(self, *, count: int, size: int, bad: str) -> None:
        """Track some events, perhaps with an event among them that the server refuses, or fails at."""
        for index in range(count):
            site = EventTemplate("/identify" if self.number % 7 == 0 else "/track", "e", {}, "here")
            text = bad if bad and index == count // 2 else "x" * size
            self.buffer.records.append((site, self.scope, 10**18, {"n": self.number, "text": text}))
            self.at_risk.add(self.number)
            self.number += 1
        self.accepted += count

    @rule()
    def commit(self) -> None:
        """Encode and keep the tracked events."""
        self.drainer.drain_batches()
        refused = self.counts.dropped.get("outbox_full", 0) - self.full
        self.full += refused
        if not refused and not self.buffer.records:
            self.expected |= self.at_risk
            self.at_risk.clear()
        elif refused:
            self.at_risk.clear()  # the oldest are in, the newest are not: only counted

    @precondition(lambda self: self.durable)
    @rule(when=st.sampled_from(["before", "after"]), export=st.booleans())
    def interrupt(self, *, when: str, export: bool) -> None:
        """Press Ctrl-C in the middle of a commit; the sender may go on before the next commit."""
        if self.buffer.records:
            self.outbox.interrupt = when
            try:
                self.commit()
            except KeyboardInterrupt:
                self.outbox.interrupt = ""
                if export:
                    self.export([])
        self.commit()

    @rule(script=st.lists(st.sampled_from([200, 200, 413, 429, 500, 0, 401, LOST_ANSWER]), max_size=6))
    def export(self, script: list[int]) -> None:
        """Deliver, beginning with the scripted answers."""
        self.server.script = script
        for _ in range(len(script) + 1):
            skip_pauses(self.exporter)
            self.exporter.export(self.server, 1.0)

    @rule()
    def maintain(self) -> None:
        """Let the outbox maintain its files."""
        self.outbox._maintain_at = self.outbox._adoption.scan_at = 0.0
        self.backlog.maintain()

    @precondition(lambda self: self.durable)
    @rule()
    def crash(self) -> None:
        """Lose all memory and every file lock, as the operating system would have done."""
        for file in self.outbox.files:
            file.abandon()
        self.at_risk.clear()
        self.start()

    @precondition(lambda self: self.durable)
    @rule()
    def restart(self) -> None:
        """End in order, and start again."""
        self.commit()
        assert self.backlog.close() == []
        self.start()

    @invariant()
    def account_closes(self) -> None:
        """Accepted and adopted events are pending, delivered, rejected or dropped."""
        if not hasattr(self, "backlog"):
            return
        counts = self.counts
        assert counts.taken + len(self.buffer.records) == self.accepted
        waiting = len(self.buffer.records) + self.backlog.pending
        ends = counts.delivered + counts.rejected + sum(counts.dropped.values())
        assert self.accepted + counts.adopted == waiting + ends
        for item in counts.rejects:
            assert "poison" in item.item or self.server.failed[item.item.encode()] >= MAX_FAILURES_ALONE
        for bodies in self.server.requests:
            assert len(bodies) <= MAX_ITEMS
            assert len(bodies) == 1 or sum(map(len, bodies)) + len(bodies) + 1 <= MAX_BODY

    def deliver(self, rounds: int) -> None:
        """Deliver with no faults until nothing is left, for some rounds at most."""
        for _ in range(rounds):
            self.maintain()
            if not self.backlog.pending:
                break
            self.export([])

    def teardown(self) -> None:
        """Deliver all remaining events, then check the arrivals."""
        if not hasattr(self, "backlog"):
            return
        self.commit()
        sent = len(self.server.requests)
        self.deliver(rounds=20)
        assert len(self.server.requests) - sent < 400
        self.server.well = True
        self.deliver(rounds=100)  # a server that had accepted nothing is probed by single items
        assert self.backlog.pending == 0
        arrived = [int(body.partition(b'"n":')[2].partition(b",")[0]) for body in self.server.accepted]
        refused = {int(body.partition(b'"n":')[2].partition(b",")[0]) for body in self.server.refused}
        failed = {int(body.partition(b'"n":')[2].partition(b",")[0]) for body in self.server.failed}
        assert self.expected <= {*arrived, *refused, *failed}
        first: dict[int, bytes] = {}
        for number, body in zip(arrived, self.server.accepted, strict=True):
            assert first.setdefault(number, body) == body  # duplicates have the same id
        twice = {body for body, times in Counter(self.server.accepted).items() if times > 1}
        assert twice <= self.server.doubtful
        by_process: dict[tuple[bytes, bool], list[int]] = {}
        for number, body in first.items():
            if body in self.server.alone:
                continue  # the search for an item at fault may let an item pass another one
            process = body.partition(b'"event_id":"')[2].partition(b"-")[0]
            by_process.setdefault((process, number % 7 == 0), []).append(number)
        for numbers in by_process.values():
            assert numbers == sorted(numbers)  # order is kept per process and endpoint: one that fails is gone around
        self.backlog.close()
        shutil.rmtree(self.directory)


Histories.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
TestHistories.__doc__ = "Limits, order, accounting and delivery at least once hold through every history."
