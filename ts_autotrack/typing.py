"""Types for code that uses ts_autotrack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

__all__ = [
    "CurrentUser",
    "DropReason",
    "FeatureType",
    "FinishedCall",
    "FinishedRequest",
    "Identity",
    "IdentitySource",
    "Interface",
    "Outcome",
    "Properties",
    "RejectedItem",
    "RequestOutcome",
    "Response",
    "Stats",
    "Transport",
]

FeatureType: TypeAlias = Literal["core", "sticky", "support", "secondary", "add-on"]
"""The vendor's kinds of feature; the last two are from its older reference."""

Interface: TypeAlias = Literal["api", "cli", "agent"]
"""The vendor's names for a surface that is not a browser."""

Outcome: TypeAlias = Literal["success", "error", "always"]
"""Outcomes of a call that make an event."""

IdentitySource: TypeAlias = Literal["user_context", "bind_user", "resolver", "baggage"]
"""The ways in which the acting user became known."""

Identity: TypeAlias = object
"""Answer of a resolver: a user id, a pair `(user_id, group_id)`, a mapping of `user_context`'s arguments, or None."""

DropReason: TypeAlias = Literal[
    "unattributed",
    "suppressed",
    "queue_full",
    "outbox_full",
    "outbox_corrupt",
    "too_large",
    "invalid",
    "disabled",
    "no_api_key",
    "in_tests",
    "bad_endpoint",
    "shutdown",
    "fault",
]
"""Reasons why an event is never sent.

- "unattributed": no user was known.
- "suppressed": tracked inside `suppress`, or by a finalizer on the library's own thread.
- "queue_full": the limits `max_queue` or `max_queue_bytes` were reached.
- "outbox_full": the limit `outbox_bytes` was reached.
- "outbox_corrupt": the file of the outbox became unreadable.
- "too_large": the item alone exceeds the vendor's limit of a request.
- "invalid": the call named nothing to send.
- "disabled", "no_api_key", "shutdown": the library was off.
- "in_tests": pytest runs, or has started this process, and the endpoint is not on this machine.
- "bad_endpoint": the library was off because its endpoint is no valid URL.
- "fault": an error inside ts_autotrack.
"""


class CurrentUser(NamedTuple):
    """The acting user, for code that passes it on.

    Attributes:
        user_id: Id of the user; None if nobody is known.
        group_id: Id of the user's account; None if unknown.
        context: Values for the `context` of events.
        properties: Values for the `properties` of events.
        source: How the user became known; None if nobody is known.
        suppressed: True inside `suppress()`: events are dropped here.

    Example:
        >>> from ts_autotrack import current_user, user_context
        >>> with user_context("user_123", group_id="account_456"):
        ...     current_user().group_id
        'account_456'
    """

    user_id: str | None
    group_id: str | None
    context: dict[str, Any]
    properties: dict[str, Any]
    source: IdentitySource | None
    suppressed: bool = False


class Stats(NamedTuple):
    """Account of this process's events.

    At any quiescent moment `accepted == delivered + pending + rejected + handed_over + sum(dropped.values())`.

    Attributes:
        accepted: Events tracked by the application, whatever became of them, plus adopted events.
        delivered: Events accepted by the server, or by the local exporter. With exporter="memory", and inside
            `testing.capture_events`: events that were read, or encoded by `flush`.
        pending: Events waiting to be delivered.
        rejected: Events refused by the server for good.
        dropped: Events never sent, by `DropReason`. Calls of functions without a wrapper (CPython 3.12 and newer) are
            not counted while the library is off.
        replaced: Values, not events, without a JSON form; a marked placeholder was sent instead.
        adopted: Events taken over from an outbox file of an ended process.
        handed_over: Events left in an outbox file for any process to adopt: by a `shutdown()` after which this process
            went on, or in a file that was deleted under it and written anew.
        in_flight: Pending events in the request in progress.
        capacity: Events that may wait in memory: the setting `max_queue`. An outbox is limited in bytes, not by this.

    Example:
        >>> from ts_autotrack import stats
        >>> sum(stats().dropped.values()) <= stats().accepted
        True
    """

    accepted: int
    delivered: int
    pending: int
    rejected: int
    dropped: dict[DropReason, int]
    replaced: int = 0
    adopted: int = 0
    handed_over: int = 0
    in_flight: int = 0
    capacity: int = 0


class FinishedCall(NamedTuple):
    """A finished call, as a callable given as `properties=` sees it.

    Attributes:
        args: Positional arguments. They include `self` if the decorated object is a plain function. They do not if
            another decorator made an object that binds `self` first.
        kwargs: Keyword arguments.
        result: Return value; None if the call raised.
        error: Exception; None if the call returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    error: BaseException | None


class RejectedItem(NamedTuple):
    """An item that the server refused for good.

    Attributes:
        path: Endpoint, such as "/track".
        item: The item as sent, as JSON.
        reason: HTTP status and the server's words.
        rejected_at: Time of the refusal, in UTC, in the contract's timestamp form.
    """

    path: str
    item: str
    reason: str
    rejected_at: str


RequestOutcome: TypeAlias = Literal["delivered", "rejected", "kept"]
"""Outcomes of a request.

- "delivered": the events arrived, except for the number `FinishedRequest.rejected`.
- "rejected": the event was refused for good.
- "kept": the events stay pending for a later request.
"""


class FinishedRequest(NamedTuple):
    """A finished request, as an observer given to `observe_requests` sees it.

    Attributes:
        path: Endpoint, such as "/track".
        events: Number of events in the request.
        seconds: Duration.
        outcome: Fate of the events.
        rejected: Number of events refused for good.
        status: HTTP status; 0 if no answer came. Exporters that print have 200 for a success.
        error: Kind of failure: the HTTP status as text, the name of an exception such as "ConnectError", "rejected" if
            the server left events out of a batch, "_OTHER"; None if all events arrived.

    Example:
        >>> from ts_autotrack.typing import FinishedRequest
        >>> FinishedRequest("/track", 17, 0.25, "kept", 0, 503, "503").outcome
        'kept'
    """

    path: str
    events: int
    seconds: float
    outcome: RequestOutcome
    rejected: int
    status: int
    error: str | None


class Response(NamedTuple):
    """Outcome of one request.

    Attributes:
        status: HTTP status; 0 if no answer came.
        body: Body of the answer, or the error as text.
        retry_after: `Retry-After` header in seconds from now; None without one.
        content_type: `Content-Type` header.
        rejected: With a success: number of items that the server refused for good without saying which.
    """

    status: int
    body: bytes = b""
    retry_after: float | None = None
    content_type: str = ""
    rejected: int = 0


class Transport(Protocol):
    """Destination of batches."""

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Send one array of encoded items.

        Args:
            path: Endpoint, such as "/track".
            bodies: Items, each a JSON object.
            timeout: Seconds that the call may block.

        Returns:
            The response; a failure to get one has status 0. Nothing is raised.
        """
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


Properties: TypeAlias = Mapping[str, object] | Callable[[FinishedCall], Mapping[str, object]]
"""Properties of an event: the same for all calls, or made from each finished call."""
