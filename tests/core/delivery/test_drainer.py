"""The drainer alone: records move from the buffer to the queue until its end."""

from __future__ import annotations

from _thread import RLock
from typing import TYPE_CHECKING

import pytest

from ts_autotrack._core.capture.buffer import Buffer
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.drainer import Drainer
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.identity.scope import Scope
from ts_autotrack._core.outbox.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

    from ts_autotrack._core.delivery.queue import Item


class Interrupted(Outbox):
    """An outbox with a Ctrl-C after its first commit."""

    interrupted = False

    def put(self, items: list[Item]) -> None:
        """Commit the items; raise the first time."""
        super().put(items)
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt


def test_what_has_ended_takes_nothing_more() -> None:
    """The thread of an ended worker leaves the buffer to the next worker."""
    buffer, counts = Buffer(), Counters()
    drainer = Drainer(buffer, Encoder(counts), MemoryQueue(), counts, RLock())
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 1, None))
    assert drainer.drain()
    assert (drainer.queue.pending, len(buffer.records)) == (1, 0)
    assert len(drainer.close()) == 1
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 2, None))
    assert not drainer.drain()
    assert (counts.taken, len(buffer.records)) == (1, 1)


def test_event_of_an_interrupted_commit_is_delivered_and_counted_once(tmp_path: Path) -> None:
    """The sender may deliver an event between the interruption of its commit and the next commit."""
    buffer, counts, lock = Buffer(), Counters(), RLock()
    queue = Interrupted(str(tmp_path), 1_000_000, per_event=True, counters=counts, lock=lock)
    drainer = Drainer(buffer, Encoder(counts), queue, counts, lock)
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 1, None))
    with pytest.raises(KeyboardInterrupt):
        drainer.drain()
    assert len(queue.peek(10)) == 1
    queue.acknowledge(1)
    assert drainer.drain()
    assert (counts.taken, drainer.pending) == (1, 0)
    assert drainer.close() == []
