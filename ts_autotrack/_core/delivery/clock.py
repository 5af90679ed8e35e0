"""Timestamps of events."""

from __future__ import annotations

import time

MIN_STEP = 1_000
"""Microseconds between two events of a user. The vendor asks for 1 ms, so that the order of events survives."""
SMALL_STEP = 1
"""Microseconds between two events of a user whose clock is `MAX_LEAD` ahead."""
MAX_LEAD = 1_000_000
"""Microseconds by which a user's clock may be ahead of the real time before `SMALL_STEP` applies."""
MAX_GAP = 2 * MAX_LEAD
"""Microseconds by which a user's clock is ahead only if the real clock was set back: the user's clock follows."""
MAX_ID_LENGTH = 256
"""Characters of a user id that is kept; of a longer id, the hash."""
MAX_USERS = 10_000
"""Users in one generation of clocks."""
MICROSECONDS = 1_000_000
"""Microseconds in a second."""


class UserClock:
    """Clock of one user.

    Attributes:
        last: The user's last timestamp, in microseconds since 1970.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0


class Clock:
    """Timestamps in the contract's form: UTC, microseconds, `Z`.

    Attributes:
        text: The last timestamp up to its seconds and the decimal point.
    """

    def __init__(self) -> None:
        self._users: dict[str | int, UserClock] = {}
        self._older_users: dict[str | int, UserClock] = {}
        self._second = 0  # microseconds at the start of the second in `text`
        self.text = b"1970-01-01T00:00:00."

    def user(self, user_id: str) -> UserClock:
        """Return the clock of a user. At least the last 10,000 users are remembered, in two generations."""
        key = user_id if len(user_id) <= MAX_ID_LENGTH else hash(user_id)
        user = self._users.get(key)
        if user is None:
            user = self._users[key] = self._older_users.get(key) or UserClock()
            if len(self._users) > MAX_USERS:
                self._older_users, self._users = self._users, {}
        return user

    def advance(self, user: UserClock, nanoseconds: int) -> int:
        """Move a user's clock to a time, or just after the user's last timestamp if that is near.

        Args:
            user: The user's clock.
            nanoseconds: Time of the event since 1970.

        Returns:
            Microseconds of the timestamp within its second. The seconds are in `text`.
        """
        now, last = nanoseconds // 1_000, user.last
        if last - MAX_GAP < now < last + MIN_STEP:
            now = max(now, last + (MIN_STEP if last - now < MAX_LEAD else SMALL_STEP))
        user.last = now
        fraction = now - self._second
        if not 0 <= fraction < MICROSECONDS:
            second, fraction = divmod(now, MICROSECONDS)
            self._second = second * MICROSECONDS
            self.text = b"%04d-%02d-%02dT%02d:%02d:%02d." % time.gmtime(second)[:6]
        return fraction
