"""Time of the next attempt after failures."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RETRY_AFTER = 3_600.0
"""Seconds: the longest `Retry-After` that is honoured."""
MAX_DOUBLINGS = 16


class Pacing(NamedTuple):
    """Durations of the sender's pauses, in seconds. Tests inject shorter ones.

    Attributes:
        first_backoff: Ceiling of the pause after the first failure.
        max_backoff: Last ceiling of the exponential backoff.
        operator_interval: Pause while only an operator can mend the cause.
        eager_period: First part of a process's life, with short flush intervals: a developer sees the first events at
            once.
        eager_interval: Flush interval during the eager period.
        isolation: Pause from the first failure of a single item to its next attempt; each further pause is doubled.
    """

    first_backoff: float = 0.5
    max_backoff: float = 60.0
    operator_interval: float = 60.0
    eager_period: float = 2.0
    eager_interval: float = 0.05
    isolation: float = 2.0


class Backoff:
    """Exponential backoff with full jitter, bounded below by the server's `Retry-After`.

    Attributes:
        pacing: Durations of the pauses.
        next_attempt_at: Monotonic time of the next attempt; 0 if nothing has to be waited for.
        forbidden_until: Monotonic time of the server's `Retry-After`.
    """

    def __init__(
        self,
        pacing: Pacing,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.next_attempt_at = 0.0
        self.pacing = pacing
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._attempted_at = 0.0
        self.forbidden_until = 0.0

    @property
    def waiting(self) -> bool:
        """True if the next attempt is not due yet."""
        return self.next_attempt_at > self._clock()

    def attempt(self) -> None:
        """Note the time of an attempt."""
        self._attempted_at = self._clock()

    def fail(self, *, needs_operator: bool, retry_after: float | None) -> float:
        """Schedule the next attempt after a failure; return the pause in seconds."""
        self._failures += 1
        pacing = self.pacing
        ceiling = min(pacing.max_backoff, pacing.first_backoff * 2 ** min(self._failures - 1, MAX_DOUBLINGS))
        requested = min(retry_after or 0.0, MAX_RETRY_AFTER)
        delay = max(requested, pacing.operator_interval if needs_operator else ceiling * self._jitter())
        now = self._clock()
        self.next_attempt_at, self.forbidden_until = now + delay, now + requested
        return delay

    def postpone(self, seconds: float) -> None:
        """Wait after a fault of this library."""
        self.next_attempt_at = self._clock() + seconds

    def skip_backoff(self) -> None:
        """Make the next attempt as soon as the server's `Retry-After` allows, at most one a second."""
        self.next_attempt_at = min(self.next_attempt_at, max(self._attempted_at + 1.0, self.forbidden_until))

    def reset_backoff(self) -> None:
        """Forget past failures: a request got through, or the settings changed."""
        self._failures, self.next_attempt_at, self.forbidden_until = 0, 0.0, 0.0
