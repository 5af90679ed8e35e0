"""Records waiting to be encoded: bounded, never blocking, every refusal counted."""

from __future__ import annotations

from collections import deque
from itertools import islice
from time import sleep

from ts_autotrack._core.contract import MAX_ITEMS
from ts_autotrack._core.counters import AtomicCounter, MemoryBudget, memory_budget
from ts_autotrack._core.snapshot import placeholders

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.capture.record import Record
    from ts_autotrack._core.counters import Counters
    from ts_autotrack.typing import DropReason, Stats

DEFAULT_LIMIT = 100_000
"""Records that may wait until the settings are read."""

MAX_READS = 1_000
"""Attempts at an account in which no event counts twice. The caller may be a signal handler inside a drain."""

CLOSED, SLOW_ONLY = 0, -1
"""Values of `Buffer.append_limit` besides a length."""

_DROP_REASONS: tuple[DropReason, ...] = (
    "disabled",
    "no_api_key",
    "in_tests",
    "bad_endpoint",
    "shutdown",
    "queue_full",
    "suppressed",
    "invalid",
    "fault",
)


def _do_nothing() -> None:
    """Stand in for a hook that nobody has set."""


class Home:
    """The buffer to which the events of one account go. A captured test has an account of its own.

    Attributes:
        buffer: The buffer that has this account's records at the moment.
        held: Records held by requests until somebody is known. Counted here, because a request may hold or release a
            record while two buffers exchange their contents.
    """

    __slots__ = ("buffer", "held")

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.held = 0


class Buffer:
    """A deque of records and one number that tells a capture whether to append.

    A capture appends while `len(records) < append_limit`. All other cases take `on_slow_path`.

    Attributes:
        records: Waiting records. The deque is never replaced, so wrappers hold its `append`.
        append_limit: CLOSED: count the event as dropped. SLOW_ONLY: every capture takes the slow path. Otherwise: the
            length from which captures take the slow path.
        on_slow_path: Called with each record that a capture may not append. The client sets this hook; without a
            client, `take`.
        on_reopen: Called when captures may append again after `close`.
        limit: Maximum of waiting records and items.
        queued: Items waiting in memory beside the records; they count towards the limit.
        home: The account of the records at present. Held records keep theirs, whatever buffer has it later.
        budget: Memory for long properties.
        drops: Counters of the events dropped before the buffer, by reason. Never replaced.
        close_reason: Drop reason while the buffer is closed; None while records are accepted.
        closed_drops: Counter of the current close reason.
        exiting: True at the end of the process: every capture takes the slow path.
    """

    __slots__ = (
        "append_limit",
        "budget",
        "close_reason",
        "closed_drops",
        "drops",
        "exiting",
        "home",
        "limit",
        "on_reopen",
        "on_slow_path",
        "queued",
        "records",
    )

    def __init__(self, budget: MemoryBudget | None = None) -> None:
        self.records: deque[Record] = deque()
        self.drops: dict[DropReason, AtomicCounter] = {reason: AtomicCounter() for reason in _DROP_REASONS}
        self.budget = budget or MemoryBudget()
        self.budget.on_exceeded = self._stop_appends
        self.on_slow_path: Callable[[Record], object] = self.take
        self.on_reopen: Callable[[], None] = _do_nothing
        self.append_limit = SLOW_ONLY
        self.reset()

    def reset(self) -> None:
        """Forget all records and counts: a forked child starts empty."""
        self.records.clear()
        self.budget.reset()
        self.queued = 0
        self.home = Home(self)
        self._open()
        self.limit = DEFAULT_LIMIT
        self.close_reason: DropReason | None = None
        self.closed_drops = self.drops["shutdown"]
        self.exiting = False
        for counter in self.drops.values():
            counter.take()

    def take(self, record: Record) -> bool:
        """Append a record, or count the event as dropped and return False."""
        if self.close_reason is not None:
            next(self.closed_drops)
            return False
        if self.full:
            next(self.drops["queue_full"])
            return False
        self.records.append(record)
        return True

    def exchange(self, other: Buffer) -> None:
        """Exchange the records, counts and state with another buffer, while captures of other threads go on.

        A record that is captured meanwhile goes to one of the two buffers.
        """
        reopens = self.append_limit == CLOSED != other.append_limit
        own_limit = SLOW_ONLY if self.append_limit else CLOSED
        self.append_limit, other.append_limit = SLOW_ONLY if other.append_limit else CLOSED, own_limit
        for name in ("close_reason", "exiting", "home", "limit", "queued"):
            own = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, own)
        self.budget.limit, other.budget.limit = other.budget.limit, self.budget.limit
        records, others = _take_all(self.records), _take_all(other.records)
        counts = {reason: counter.take() for reason, counter in self.drops.items()}
        for reason, counter in other.drops.items():
            self.drops[reason].add(counter.take())
            counter.add(counts[reason])
        for buffer, moved in ((self, others), (other, records)):
            buffer.records.extendleft(reversed(moved))
            buffer.home.buffer = buffer
            buffer.closed_drops = buffer.drops[buffer.close_reason or "shutdown"]
        if reopens:
            self.on_reopen()

    def close(self, reason: DropReason) -> None:
        """Accept no more records; count further events as dropped for `reason`."""
        self.closed_drops = self.drops[reason]
        self.close_reason = reason
        self.append_limit = CLOSED

    def reopen(self) -> None:
        """Accept records again."""
        self.close_reason = None
        self._open()

    def begin_exit(self) -> None:
        """Send every further record through the slow path, also while the buffer is closed."""
        self.exiting = True
        self._open()

    def _open(self) -> None:
        was_closed = self.append_limit == CLOSED
        self.append_limit = SLOW_ONLY
        if was_closed:
            self.on_reopen()

    def stats(self, counters: Counters, pending: int, in_flight: int) -> Stats:
        """Return the whole account.

        Args:
            counters: Counts of the events that left the buffer.
            pending: Unsettled events, the records of this buffer included.
            in_flight: Events of the request in progress.
        """
        replaced, held = placeholders.read(), self.held
        attempts = 0
        while True:
            attempts += 1
            taken, at_rest = counters.taken, not counters.moving  # in this order: a later batch changes `taken`
            account = counters.stats(self.dropped(), len(self.records) + held, pending + held, replaced)
            if attempts == MAX_READS or (at_rest and counters.taken == taken):
                return account._replace(in_flight=in_flight, capacity=self.limit)
            sleep(0)

    def dropped(self) -> dict[DropReason, int]:
        """Return the numbers of events dropped before the buffer, by reason."""
        return {reason: counter.read() for reason, counter in self.drops.items()}

    @property
    def held(self) -> int:
        """Records held by requests until somebody is known; they count towards the limit."""
        return self.home.held

    @property
    def full(self) -> bool:
        """True if no record may be added, by number or by bytes."""
        return len(self.records) + self.queued + self.held >= self.limit or self.budget.exceeded

    @property
    def backed_up(self) -> bool:
        """True if draining matters more than leaving the GIL to other threads: an eighth of the limit waits."""
        return 8 * (len(self.records) + self.queued) > self.limit

    def require_slow_path(self) -> None:
        """Make the next record take the slow path, which wakes the worker."""
        self.append_limit = SLOW_ONLY if self.close_reason is None else CLOSED

    def allow_appends(self) -> None:
        """Let captures append directly, until enough records wait to wake the worker or the limit is reached."""
        limit = self.limit - self.queued - self.held
        enough = min(MAX_ITEMS, (limit + 1) // 2)
        append_limit = enough if len(self.records) < enough else limit or SLOW_ONLY  # 0 would mean closed
        if self.budget.exceeded or self.exiting:
            append_limit = SLOW_ONLY
        self.append_limit = append_limit if self.close_reason is None else CLOSED

    def peek(self, most: int) -> list[Record]:
        """Return up to `most` of the oldest records; `remove` takes them out later."""
        try:
            return list(islice(self.records, most))
        except RuntimeError:  # a finalizer appended during the iteration
            return [self.records[index] for index in range(min(most, len(self.records), 100))]

    def remove(self, records: list[Record]) -> None:
        """Remove these records from the front, as far as they are still there."""
        for record in records:
            if self.records and self.records[0] is record:
                self.records.popleft()

    def _stop_appends(self) -> None:
        if self.append_limit > 0:
            self.append_limit = SLOW_ONLY


def _take_all(records: deque[Record]) -> list[Record]:
    """Take the present records out; other threads may append more."""
    return [records.popleft() for _ in range(len(records))]


buffer = Buffer(memory_budget)
"""The buffer of this process."""
