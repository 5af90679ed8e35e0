"""Types for code that uses ts_autotrack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["FeatureType", "FinishedCall", "Interface", "Outcome", "Properties", "RejectedItem", "Stats"]

FeatureType: TypeAlias = Literal["core", "sticky", "support", "secondary", "add-on"]
"""The vendor's kinds of feature; the last two are from its older reference."""
Interface: TypeAlias = Literal["api", "cli", "agent"]
"""The vendor's names for a surface that is not a browser."""
Outcome: TypeAlias = Literal["success", "error", "always"]
"""Which calls make an event."""


class Stats(NamedTuple):
    """What became of the events of this process.

    Whenever nothing is in motion, `accepted == delivered + pending + rejected + handed_over + sum(dropped.values())`.

    Attributes:
        accepted: Events that the application handed over, whatever became of them, and those that were adopted.
        delivered: Events that the server (or the local exporter) accepted.
        pending: Events that wait to be delivered.
        rejected: Events that the server refused for good.
        dropped: Events that were never sent, by reason: "unattributed" (no user was known), "suppressed",
            "queue_full", "outbox_full", "outbox_corrupt", "too_large", "invalid", "disabled", "no_api_key",
            "shutdown", "fault".
        replaced: Values, not events, that have no JSON form and were replaced by a marked placeholder.
        adopted: Events that another process had left in the outbox when it ended, and that this one took over.
        handed_over: Events that this process has left in an outbox for any process to adopt, this one included: with
            `shutdown()`, when it has then gone on, or in a file that was deleted under it, and that it wrote anew.

    Example:
        >>> from ts_autotrack import stats
        >>> sum(stats().dropped.values()) <= stats().accepted
        True
    """

    accepted: int
    delivered: int
    pending: int
    rejected: int
    dropped: dict[str, int]
    replaced: int = 0
    adopted: int = 0
    handed_over: int = 0


class FinishedCall(NamedTuple):
    """What a callable given as `properties=` gets to see.

    Attributes:
        args: The call's positional arguments; with `self` if what is decorated is a plain function, without it if
            another decorator has made it something else, which binds `self` first.
        kwargs: Its keyword arguments.
        result: What it returned; None if it raised.
        error: What it raised; None if it returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    error: BaseException | None


class RejectedItem(NamedTuple):
    """An item that the server has refused for good.

    Attributes:
        path: The endpoint, such as "/track".
        item: The item as it was sent, as JSON.
        reason: The status and the server's own words.
        rejected_at: When, in UTC, as the contract writes timestamps.
    """

    path: str
    item: str
    reason: str
    rejected_at: str


Properties: TypeAlias = Mapping[str, object] | Callable[[FinishedCall], Mapping[str, object]]
"""Properties of an event: the same for all calls, or made from each finished call."""
