"""The drainer alone: records move from the buffer to the queue until its end."""

from __future__ import annotations

from _thread import RLock

from ts_autotrack._core.capture.buffer import Buffer, EventTemplate
from ts_autotrack._core.config import load
from ts_autotrack._core.counters import Counts
from ts_autotrack._core.delivery.drainer import Keeping
from ts_autotrack._core.identity.scope import Scope


def test_what_has_ended_takes_nothing_more() -> None:
    """The thread of an ended worker leaves the buffer to the next worker."""
    buffer, counts = Buffer(), Counts()
    keeping = Keeping(buffer, counts, load({"exporter": "none"}), RLock(), RLock())
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 1, None))
    assert keeping.run()
    assert (keeping.pending, len(buffer.records)) == (1, 0)
    assert len(keeping.close()) == 1
    buffer.records.append((EventTemplate("/track", "e", {}, "here", user_id="u"), Scope(), 2, None))
    assert not keeping.run()
    assert (counts.taken, len(buffer.records)) == (1, 1)
