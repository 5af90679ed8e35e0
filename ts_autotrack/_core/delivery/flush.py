"""Bookkeeping for callers blocked in flush()."""

from __future__ import annotations

import contextlib
from collections import deque

from ts_autotrack._core.delivery.thread import OneShotEvent


class FlushRequest:
    """One waiting caller.

    Attributes:
        last_sequence: Sequence number of the last record to wait for; None until the sender sees the request.
        done: Set when the wait is over.
        settled: True if all records up to `last_sequence` are delivered, rejected or dropped.
    """

    __slots__ = ("done", "last_sequence", "settled")

    def __init__(self) -> None:
        self.last_sequence: int | None = None
        self.settled = False
        self.done = OneShotEvent()


class FlushRequests:
    """All waiting callers. They call `add` and `cancel`; the sender calls the other methods."""

    def __init__(self) -> None:
        self._waiting: deque[FlushRequest] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self) -> FlushRequest:
        """Return a new request."""
        request = FlushRequest()
        self._waiting.append(request)
        return request

    def cancel(self, request: FlushRequest) -> None:
        """Remove a request."""
        with contextlib.suppress(ValueError):  # the sender settled the request just now
            self._waiting.remove(request)

    def assign(self, last_sequence: int) -> None:
        """Make new requests wait for the records up to this sequence number."""
        for request in list(self._waiting):
            if request.last_sequence is None:
                request.last_sequence = last_sequence

    def settle(self, through: int) -> None:
        """Finish the requests that wait for no record after this sequence number."""
        for request in list(self._waiting):
            if request.last_sequence is not None and request.last_sequence <= through:
                request.settled = True
                request.done.set()
                self.cancel(request)

    def close(self) -> None:
        """Finish all requests, settled or not."""
        while self._waiting:
            self._waiting.popleft().done.set()
