"""Settings and life cycle. Normal use needs none of these functions."""

from __future__ import annotations

from ts_autotrack._core.client import client

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

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
    interface: str | None = None,
    context: Mapping[str, object] | None = None,
    properties: Mapping[str, object] | None = None,
    in_tests: bool | None = None,
    disabled: bool | None = None,
    debug: bool | None = None,
) -> None:
    """Change settings, at any time. Settings that are not given keep their values.

    The call imports the delivery stack, if the settings make the library active.

    Args:
        api_key: Sent as `x-api-key`. Environment: THRIVESTACK_API_KEY.
        auth_token: Sent as `Authorization: Bearer`. Environment: THRIVESTACK_AUTH_TOKEN.
        endpoint: Base URL, without "/track", query or credentials. Environment: THRIVESTACK_ENDPOINT.
        exporter: "thrivestack", "console", "jsonl", "memory", "otlp" or "none". "memory" keeps the events for
            `ts_autotrack.testing.read`, without a thread. "otlp" sends OpenTelemetry log records to a Collector, as the
            OTEL_EXPORTER_OTLP_* variables say; it needs the extra `otlp`.
        jsonl_path: The file that "jsonl" appends to; "-" is standard output. "memory" appends its events to the file
            when the process ends.
        flush_interval: Seconds between two batches, unless 1,000 events wait before that.
        request_timeout: Seconds that a request may wait for a connection, for the next piece of the answer's head, and
            for the whole body.
        exit_timeout: Seconds by which delivery may delay the end of the process.
        max_queue: Events that may wait in memory; further events are dropped as "queue_full".
        max_queue_bytes: Bytes that may wait in memory; further events are dropped as "queue_full". Properties and names
            count if an event has more than 512 bytes of them, and so do ids and values of its `user_context`; a value
            that waiting events share counts once.
        outbox: Directory that keeps events until they are delivered, so that a crash, `os._exit` or a long outage loses
            none. All processes of an application may share the directory. The first event fixes the outbox; a later
            change needs `shutdown` before.
        outbox_bytes: Bytes of all event files in the outbox, logs and ended processes included; further events are
            dropped as "outbox_full". The files of other processes are measured every few seconds.
        durability: "batch": an event is in the outbox within 50 ms, at no cost to the call. "event": before the call
            returns.
        baggage: True to read ids from OpenTelemetry baggage when no `user_context` gives them.
        interface: "api", "cli" or "agent": `properties.interface` of all events of this process, for a surface other
            than a browser.
        context: Values for the `context` of all events of this process, such as `{"environment": "staging"}`. Values
            of a block win. `group_id` is refused: an account belongs to a user.
        properties: Values for the `properties` of all events of this process but `identify` and `group`. Values of a
            block, a decorator or a call win.
        in_tests: True to send events to another machine also under pytest. Otherwise pytest, and each process that a
            test starts, drops them as "in_tests".
        disabled: True to drop all events.
        debug: True to log every delivery to standard error.

    Raises:
        ValueError: If a value is not valid for its setting.

    Example:
        >>> import ts_autotrack
        >>> ts_autotrack.configure(exporter="none")
    """
    client.configure(**{name: value for name, value in locals().items() if value is not None})


def flush(timeout: float = 5.0) -> bool:
    """Wait until every event so far has arrived, been refused or been dropped.

    In a process with an outbox the first call also starts the background thread, which goes on to deliver the events
    of ended processes.

    Args:
        timeout: Maximum wait in seconds.

    Returns:
        True if all events are settled. False if time ran out; a warning then gives the number of events left. False,
        too, if events were dropped because there is no key or the endpoint is refused. Events that other processes left
        in the outbox do not count.

    Example:
        >>> from ts_autotrack import flush
        >>> flush(timeout=1)
        True
    """
    return client.shutdown.flush(timeout)


def shutdown(timeout: float | None = None, *, durable: bool = False) -> bool:
    """Deliver the waiting events and stop the thread. Later events are dropped as "shutdown".

    The end of the process calls this function by itself.

    Args:
        timeout: Maximum wait in seconds; default: the setting EXIT_TIMEOUT.
        durable: True to leave events in the outbox to another process, and to wait only for a request that is under
            way. Without an outbox the call waits as usual.

    Returns:
        True if no event is left. False if time ran out; a warning then gives the number of events left.

    Example:
        >>> from ts_autotrack import shutdown
        >>> shutdown(timeout=1)
        True
    """
    return client.shutdown.shutdown(timeout, durable=durable)


def rejected() -> list[RejectedItem]:
    """Return the last items of this process that the server refused for good: up to 1,000 items and 8 MB, oldest first.

    An outbox keeps all refused items in its quarantine: see `ts-autotrack outbox list`.

    Example:
        >>> from ts_autotrack import rejected
        >>> [item.reason for item in rejected()]
        []
    """
    return client.rejected()


def stats() -> Stats:
    """Return the account of this process's events.

    Example:
        >>> from ts_autotrack import stats
        >>> stats().rejected
        0
    """
    return client.stats()
