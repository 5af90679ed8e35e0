"""Endpoint: the state of one endpoint's delivery, and the search for an item that makes its batch fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core.contract import MAX_ITEMS

if TYPE_CHECKING:
    from ts_autotrack._core.delivery.backoff import Backoff

MIN_TIMED_OUT = 50
"""Items: a timeout halves larger batches at once."""
GROW_AFTER = 20
"""Accepted requests in a row after which a batch that timeouts had shrunk doubles."""
SEARCH_AFTER = 2
"""Failures in a row after which parts of the batch are tried."""
MAX_ALONE = 3
"""Single items in a row without an answer that accepts one: from then on the endpoint counts as away."""
MAX_REFUSED = 20
"""Refused items in a row without an accepted one: from then on the endpoint counts as away."""
MAX_FAILURES_ALONE = 4
"""Failures of a single item after which the item is quarantined, if between them others were accepted and none failed.

A server that fails one request in ten at random thus costs no item: it fails others, too.
"""
MAX_PAUSE = 60.0
"""Seconds between two attempts at an item that failed alone."""
EXPLORE_EVERY, EXPLORED = 4, 20
"""Every fourth probe of an endpoint that is away tries another of its first 20 items: the first may be at fault."""


class IsolatedItem:
    """An item that failed alone.

    Attributes:
        failures: Failures in a row, with other items accepted between them and none failed.
        accepted: Value of `Endpoint.accepted` at the last failure.
        others_failed: Value of `Endpoint.others_failed` at the last failure.
        retry_at: Monotonic time of the next attempt.
    """

    __slots__ = ("_pause", "accepted", "failures", "others_failed", "retry_at")

    def __init__(self, pause: float) -> None:
        self.failures = 0
        self.accepted = -1
        self.others_failed = 0
        self.retry_at = 0.0
        self._pause = pause

    def fail(self, accepted: int, others_failed: int, now: float) -> None:
        """Note a failure."""
        if others_failed != self.others_failed:
            self.failures = 0
        if accepted > self.accepted:
            self.failures += 1
        self.accepted, self.others_failed = accepted, others_failed
        self.retry_at = now + self._pause
        self._pause = min(2 * self._pause, MAX_PAUSE)


class Endpoint:
    """State of one endpoint.

    Attributes:
        path: Path of the endpoint, such as "/track".
        backoff: Time of the next attempt.
        away: True if nothing is accepted: other endpoints go first, and single items probe this one.
        told: True after the log has mentioned that other endpoints go first.
        accepted: Requests accepted so far.
        failures: Failed requests since the last accepted one.
        others_failed: Failed requests so far with items that are not isolated.
        isolated: Items that failed alone.
        refused: Refused items since the last accepted one.
    """

    def __init__(self, path: str, backoff: Backoff) -> None:
        self.path = path
        self.backoff = backoff
        self.away = False
        self.told = False
        self.accepted = 0
        self.failures = 0
        self.others_failed = 0
        self.isolated: dict[bytes, IsolatedItem] = {}
        self.refused = 0
        self._sizes: list[int] = []  # parts of a failed batch that are still to be tried, the next one last
        self._limit = MAX_ITEMS  # halved by timeouts
        self._in_a_row = 0  # accepted requests since `_limit` changed
        self._alone = 0  # items that failed alone since the last accepted request
        self._probes = 0

    @property
    def searching(self) -> bool:
        """True while the parts of a failed batch are tried."""
        return bool(self._sizes)

    @property
    def most(self) -> int:
        """Items of the next batch at most."""
        if self._alone:
            return 1
        return self._sizes[-1] if self._sizes else self._limit

    @property
    def probe(self) -> int:
        """Position, among the items of this endpoint, of the next probe while the endpoint is away."""
        turn, rest = divmod(self._probes, EXPLORE_EVERY)
        return 1 + turn % EXPLORED if rest == EXPLORE_EVERY - 1 else 0

    def succeed(self, bodies: list[bytes]) -> None:
        """Note that these items were accepted."""
        if self.away and not self.probe:
            self.isolated.clear()  # nothing was accepted: the endpoint was at fault, not its items
        if bodies[0] in self.isolated:
            del self.isolated[bodies[0]]
        else:
            self._consume(len(bodies))
        self.away = self.told = False
        self.failures = self.refused = self._alone = self._probes = 0
        self.accepted += 1
        self._in_a_row += 1
        if self._limit < MAX_ITEMS and self._in_a_row >= GROW_AFTER:
            self._limit, self._in_a_row = min(2 * self._limit, MAX_ITEMS), 0
        self.backoff.reset_backoff()

    def split(self, count: int) -> None:
        """Try the halves of a batch of `count` items next."""
        self._consume(count)
        self._sizes += [count - count // 2, count // 2]

    def refuse(self, body: bytes) -> bool:
        """Note that an item was refused alone; return False if too many were without an accepted one."""
        if self.away or self.refused >= MAX_REFUSED:
            self._give_up()
            return False
        self.refused += 1
        if body not in self.isolated:
            self._consume(1)
        return True

    def time_out(self, count: int) -> None:
        """Use smaller batches after a batch of `count` items timed out."""
        self._limit, self._in_a_row = max(MIN_TIMED_OUT, count // 2), 0
        self._sizes.clear()

    def search(self, bodies: list[bytes], now: float) -> None:
        """Choose the next batch after a failed one: single items, then the parts of the batch."""
        count = len(bodies)
        if self.away:
            self._probes += 1
        elif count == 1 and (self._alone or self.failures >= SEARCH_AFTER):
            self._isolate(bodies[0], now)
        elif count > 1 and self.searching:
            self.split(count)
        elif count > 1 and self.failures >= SEARCH_AFTER:
            self._sizes = [count - 1, 1]

    def fail_alone(self, body: bytes, now: float) -> bool:
        """Note that an isolated item failed again; return True if the item is at fault."""
        isolated = self.isolated[body]
        isolated.fail(self.accepted, self.others_failed, now)
        return isolated.failures >= MAX_FAILURES_ALONE

    def reset(self) -> None:
        """Forget past failures: the settings have changed."""
        self.isolated.clear()
        self._sizes.clear()
        self.away = False
        self.failures = self.refused = self._alone = self._probes = 0
        self.backoff.reset_backoff()

    def _isolate(self, body: bytes, now: float) -> None:
        isolated = self.isolated.setdefault(body, IsolatedItem(self.backoff.pacing.isolation))
        isolated.fail(self.accepted, self.others_failed, now)
        self._consume(1)
        self._alone += 1
        if self._alone >= MAX_ALONE:
            self._give_up()

    def _give_up(self) -> None:
        self.away = True
        self._probes += 1
        self._alone = 0
        self._sizes.clear()

    def _consume(self, count: int) -> None:
        """Take items that are settled, passed or split off the sizes."""
        while count and self._sizes:
            size = self._sizes.pop()
            if size > count:
                self._sizes.append(size - count)
            count -= min(size, count)
