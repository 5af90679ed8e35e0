"""Settings and life cycle, for those who want them: normal use needs none of it."""

from __future__ import annotations

from ts_autotrack._core.client import client

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    import os

    from ts_autotrack.typing import RejectedItem, Stats


def configure(  # noqa: PLR0913 - the settings
    *,
    api_key: str | None = None,
    auth_token: str | None = None,
    endpoint: str | None = None,
    exporter: str | None = None,
    jsonl_path: str | os.PathLike[str] | None = None,
    flush_interval: float | None = None,
    request_timeout: float | None = None,
    exit_timeout: float | None = None,
    max_queue: int | None = None,
    max_queue_bytes: int | None = None,
    outbox: str | os.PathLike[str] | None = None,
    outbox_bytes: int | None = None,
    durability: str | None = None,
    baggage: bool | None = None,
    disabled: bool | None = None,
    debug: bool | None = None,
) -> None:
    """Set what the environment does not, at any time. What is not given keeps its value.

    Args:
        api_key: Sent as `x-api-key`. Environment: THRIVESTACK_API_KEY.
        auth_token: Sent as `Authorization: Bearer`. Environment: THRIVESTACK_AUTH_TOKEN.
        endpoint: Base URL, without "/track". Environment: THRIVESTACK_ENDPOINT.
        exporter: "thrivestack", "console", "jsonl" or "none".
        jsonl_path: The file that "jsonl" appends to; "-" is standard output.
        flush_interval: Seconds between two batches, unless 1,000 events wait before that.
        request_timeout: Seconds that a request may wait for a connection, for the next piece of the answer's head, and
            for all of its body.
        exit_timeout: Seconds that the end of the process may be held up to deliver what is left.
        max_queue: Events that may wait in memory; more are refused and counted as "queue_full".
        max_queue_bytes: Bytes of what these carry, counted where an event, or a `user_context` that has ended, has more
            than 512; past it events are refused, too.
        outbox: A directory in which events are kept until they are delivered, so that a crash, `os._exit` or a long
            outage loses none. Any number of processes of one application may share it. Chosen when the process tracks
            its first event; from then on a change waits for `shutdown`.
        outbox_bytes: Bytes of events that the outbox may hold, all processes together; past it new ones are refused and
            counted as "outbox_full". What other processes hold is looked at every few seconds.
        durability: "batch": an event is in the outbox within 50 ms, at no cost to the call; "event": before the call
            returns.
        baggage: Whether ids are read from OpenTelemetry baggage when no `user_context` gives them.
        disabled: Whether to do nothing at all.
        debug: Whether to log every delivery to standard error.

    Raises:
        ValueError: If a value is no good for its setting.

    Example:
        >>> import ts_autotrack
        >>> ts_autotrack.configure(exporter="none")
    """
    client.configure(**{name: value for name, value in locals().items() if value is not None})


def flush(timeout: float = 5.0) -> bool:
    """Wait until every event so far has arrived, been refused or been dropped.

    Args:
        timeout: Seconds to wait at the most.

    Returns:
        True if all of them are settled; False if time ran out, and a warning says how many are left. What other
        processes have left in the outbox is not waited for.

    Example:
        >>> from ts_autotrack import flush
        >>> flush(timeout=1)
        True
    """
    return client.flush(timeout)


def shutdown(timeout: float | None = None) -> bool:
    """Deliver what is left and stop the thread. Runs by itself at exit; later events are dropped as "shutdown".

    Args:
        timeout: Seconds to wait at the most; default: the setting EXIT_TIMEOUT.

    Returns:
        True if nothing is left; False if time ran out, and a warning says how many events are left.

    Example:
        >>> from ts_autotrack import shutdown
        >>> shutdown(timeout=1)
        True
    """
    return client.shutdown(timeout)


def rejected() -> list[RejectedItem]:
    """Return the last items of this process that the server refused for good, oldest first: 1,000 or 8 MB.

    With an outbox all of them are in its quarantine: see `ts-autotrack outbox list`.

    Example:
        >>> from ts_autotrack import rejected
        >>> [item.reason for item in rejected()]
        []
    """
    return client.rejected()


def stats() -> Stats:
    """Return what became of the events of this process.

    Example:
        >>> from ts_autotrack import stats
        >>> stats().rejected
        0
    """
    return client.stats()
