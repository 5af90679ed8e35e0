"""The latest timestamp of each user, to find events out of order."""

from __future__ import annotations

from collections import OrderedDict

KEPT_USERS = 20_000
"""Users whose latest timestamp is known."""


class Latest:
    """Latest timestamps of the users whose events came last.

    Timestamps of a request count for later requests once the request is stored: a sender repeats a failed request.
    """

    def __init__(self) -> None:
        self._stored: OrderedDict[str, str] = OrderedDict()
        self._new: dict[str, str] = {}

    def begin(self) -> None:
        """Begin with the items of a request. Items of an earlier request that is not stored are forgotten."""
        self._new = {}

    def is_late(self, user_id: str, timestamp: str) -> bool:
        """Return True if an earlier event of the user has a later timestamp."""
        latest = self._new.get(user_id) or self._stored.get(user_id, "")
        self._new[user_id] = max(latest, timestamp)
        return timestamp < latest

    def stored(self) -> None:
        """Keep the timestamps of the request."""
        for user_id, timestamp in self._new.items():
            self._stored[user_id] = timestamp
            self._stored.move_to_end(user_id)
        while len(self._stored) > KEPT_USERS:
            self._stored.popitem(last=False)

    def clear(self) -> None:
        """Forget all users."""
        self._stored.clear()
