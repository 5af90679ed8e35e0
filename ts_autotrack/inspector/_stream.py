"""Server-sent events: each reader reads the store at the reader's own speed.

A reader is a position in the store and nothing more. A slow reader therefore costs no memory, and a reader that comes
back continues after its Last-Event-ID.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import orjson

from ts_autotrack.inspector import _entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ts_autotrack.inspector._reports import Reports
    from ts_autotrack.inspector._store import Store

MOST_READERS = 100
"""Streams, and requests that wait for an event, at the same time."""
PAGE = 500
"""Entries in one message."""
PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two messages, at least and at most: entries that arrive meanwhile share a message."""
REST = 20
"""A pause is as many times longer than the CPU time to compose the message. Sending takes as much time as composing, so
that a reader takes a tenth of the inspector's time at most; while more entries arrive, the reader falls behind."""
HEARTBEAT = 10.0
"""Seconds of silence after which a comment is sent."""
RETRY = 500
"""Milliseconds after which a browser connects again."""
_EVENTS = {"accepted": "item", "refused": "refused"}


class Feed:
    """Wakes waiting readers.

    Attributes:
        closed: True when the inspector ends.
        readers: Number of readers.
    """

    def __init__(self) -> None:
        self.closed = False
        self.readers = 0
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Tell all readers that there is something new."""
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """End all streams."""
        self.closed = True
        self.wake()

    def news(self) -> asyncio.Event:
        """Return the event that the next call of `wake()` sets. Take it before a look into the store."""
        return self._news

    @property
    def full(self) -> bool:
        """True if no more readers are served."""
        return self.readers >= MOST_READERS


async def arrival(news: asyncio.Event, timeout: float) -> bool:
    """Wait for news; return False if there are none in `timeout` seconds."""
    try:
        await asyncio.wait_for(news.wait(), timeout)
    except asyncio.TimeoutError:
        return False
    return True


class Reader:
    """One stream of messages.

    Args:
        store: Store of the entries.
        reports: Reports of processes.
        faults: Returns the active faults.
        last_event_id: Id of the last message that the reader has seen, `STORE-NUMBER` or `NUMBER`; empty for none.
    """

    def __init__(
        self, store: Store, reports: Reports, faults: Callable[[], list[dict[str, Any]]], last_event_id: str
    ) -> None:
        self._store = store
        self._reports = reports
        self._faults = faults
        self._cursor = position(store, last_event_id)
        self._reported = 0
        self._shown_faults: list[dict[str, Any]] | None = None

    async def messages(self, feed: Feed) -> AsyncIterator[bytes]:
        """Yield texts in the format of server-sent events until the feed is closed."""
        feed.readers += 1
        try:
            yield b"retry: %d\n\n" % RETRY + self._message("hello", {"store": self._store.name})
            while not feed.closed:
                news, began = feed.news(), time.thread_time()
                if text := self._state() + self._entries():
                    pause = REST * (time.thread_time() - began)
                    yield text
                    await asyncio.sleep(min(max(PAUSE, pause), LONGEST_PAUSE))
                elif not await arrival(news, HEARTBEAT):
                    yield b": nothing new\n\n"
        except sqlite3.Error:
            return  # the database is locked; the reader comes back after its last message
        finally:
            feed.readers -= 1

    def _state(self) -> bytes:
        """Return messages about changes of faults and reports, and about a cleared store."""
        text = b""
        if self._cursor < self._store.cleared_through:
            self._cursor = self._store.cleared_through
            text += self._message("cleared", {"store": self._store.name})
        for number, process in self._reports.since(self._reported):
            self._reported = number
            text += self._message("report", process)
        if (faults := self._faults()) != self._shown_faults:
            self._shown_faults = faults
            text += self._message("faults", {"faults": faults})
        return text

    def _entries(self) -> bytes:
        """Return a message with the entries after the reader's position; an entry alone has a message of its own."""
        found = _entries.after(self._store, self._cursor, PAGE)
        if not found:
            return b""
        self._cursor = found[-1]["id"]
        if len(found) == 1:
            return self._message(_EVENTS[found[0]["kind"]], found[0])
        return self._message("batch", found)

    def _message(self, event: str, data: Any) -> bytes:
        """Return a message; JSON has no line breaks."""
        head = f"id: {self._store.name}-{self._cursor}\nevent: {event}\ndata: "
        return head.encode() + orjson.dumps(data) + b"\n\n"


def position(store: Store, last_event_id: str) -> int:
    """Return the id after which a reader continues: -1, before all, if the id belongs to another store."""
    name, _, number = last_event_id.rpartition("-")
    if not last_event_id:
        return store.last_id
    if name not in ("", store.name) or not (number.isascii() and number.isdigit()) or len(number) > len(str(2**62)):
        return -1
    last = store.last_id
    return int(number) if int(number) <= last else -1
