"""Who waits in `flush`, and for what."""

from __future__ import annotations

import contextlib
from collections import deque

from ts_autotrack._runner import Latch


class Ticket:
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
        self.done = Latch()


class Tickets:
    """The tickets of all who wait. `take` and `give_back` are called by those, the rest by the worker."""

    def __init__(self) -> None:
        self._waiting: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Ticket:
        """Return a new ticket."""
        ticket = Ticket()
        self._waiting.append(ticket)
        return ticket

    def give_back(self, ticket: Ticket) -> None:
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
