"""Who waits in `flush`, and for what."""

from __future__ import annotations

import contextlib
from collections import deque

from ts_autotrack._core.delivery.thread import OneShotEvent

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.delivery.worker import Worker


class FlushRequest:
    """Somebody waits in `flush`.

    Attributes:
        last: The number of the last record that the flush is about; None until the worker has seen the ticket.
        done: Opens when there is nothing more to wait for.
        settled: Whether everything up to there has been delivered, rejected or dropped.
    """

    __slots__ = ("done", "last", "settled")

    def __init__(self) -> None:
        self.last: int | None = None
        self.settled = False
        self.done = OneShotEvent()


class FlushRequests:
    """The tickets of all who wait. `take` and `give_back` are called by those, the rest by the worker."""

    def __init__(self) -> None:
        self._waiting: deque[FlushRequest] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> FlushRequest:
        """Return a new ticket."""
        ticket = FlushRequest()
        self._waiting.append(ticket)
        return ticket

    def give_back(self, ticket: FlushRequest) -> None:
        """Wait no more."""
        with contextlib.suppress(ValueError):  # it was settled just now
            self._waiting.remove(ticket)

    def admit(self, last: int) -> None:
        """Have those who are new wait for everything up to the record with this number."""
        for ticket in list(self._waiting):
            if ticket.last is None:
                ticket.last = last

    def settle(self, through: int) -> None:
        """Tell all those who wait for no record after this one."""
        for ticket in list(self._waiting):
            if ticket.last is not None and ticket.last <= through:
                ticket.settled = True
                ticket.done.open()
                self.give_back(ticket)

    def close(self) -> None:
        """Let everybody go."""
        while self._waiting:
            self._waiting.popleft().done.open()


SLICE, MOST_SLICES = 0.1, 10
"""Seconds after which a signal's handler looks whether delivery is stuck; and how many times, before it takes that for
granted: it may be stuck inside of a request, too."""


class Farewell:
    """The wait, in the handler of a signal that ends the process, for what is left to be delivered."""

    def __init__(self, worker: Worker, tickets: FlushRequests) -> None:
        self._worker = worker
        self._tickets = tickets
        self._ticket: FlushRequest | None = (
            None  # one for all of the wait, or nothing new could ever be tracked meanwhile
        )
        self._went_on = False

    def wait(self, time_left: Callable[[], float]) -> bool | None:
        """Return whether all is settled, or None if what the signal has interrupted should go on for a moment.

        Delivery may want a lock that it holds, or it is our own work. What it tracks then is waited for, too.
        """
        worker, slices = self._worker, 0
        while True:
            worker.keep(SLICE)
            self._ticket = self._ticket or self._tickets.take()
            left, slices = time_left(), slices + 1
            if worker.wait_for(self._ticket, min(SLICE, left)):
                self._ticket = None
                if not self._went_on:
                    return True
                self._went_on = False  # once more, for what it has tracked
            elif not left or worker.ended:
                self._tickets.give_back(self._ticket)
                self._ticket = None  # should the process go on after all
                return False
            elif worker.may_be_stuck or slices >= MOST_SLICES:
                self._went_on = True
                return None
