"""The drainer alone: records move from the buffer to the queue until its end."""

from __future__ import annotations

from _thread import RLock

from ts_autotrack._core.capture.buffer import Buffer
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.drainer import Drainer
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.identity.scope import Scope


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
