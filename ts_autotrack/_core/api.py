"""Settings and life cycle. Normal use needs none of these functions."""

from __future__ import annotations

from ts_autotrack._core.client import client
from ts_autotrack._core.config import public

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

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
    baggage_user_keys: str | Sequence[str] | None = None,
    baggage_group_keys: str | Sequence[str] | None = None,
    propagate_baggage: bool | None = None,
    span_events: bool | None = None,
    interface: str | None = None,
    context: Mapping[str, object] | None = None,
    properties: Mapping[str, object] | None = None,
    features: Mapping[str, str | Mapping[str, object]] | str | None = None,
    user: str | None = None,
    integrations: Iterable[str] | str | None = None,
    otel_features: Mapping[str, str] | str | None = None,
    otel_properties: Iterable[str] | str | None = None,
    otel_errors: bool | None = None,
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
        request_timeout: Seconds for a whole request: connection, sending, and answer.
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
        baggage_user_keys: Keys of the user's id in baggage, such as `["user.id", "enduser.id"]`: the first present key
            counts.
        baggage_group_keys: Keys of the account's id, likewise.
        propagate_baggage: True to put the ids of the acting user, and nothing else, into the OpenTelemetry baggage of
            outgoing requests, under the first user key and the first group key. All outgoing requests that
            OpenTelemetry instruments carry the ids then, those to third parties included. Inside `suppress()` no
            request does. Call again after `opentelemetry.propagate.set_global_textmap`, which replaces the writer.
        span_events: True to add an event to the recording span of OpenTelemetry for each tracked call, with the name of
            the feature and no ids.
        interface: "api", "cli" or "agent": `properties.interface` of all events of this process, for a surface other
            than a browser.
        context: Values for the `context` of all events of this process, such as `{"environment": "staging"}`. Values
            of a block win. `group_id` is refused: an account belongs to a user.
        properties: Values for the `properties` of all events of this process but `identify` and `group`. Values of a
            block, a decorator or a call win.
        features: Features of functions, routes, tasks and commands that are left alone, by their names: such as
            `{"myapp.reports:export": "report_export", "GET /reports/{id}": "report_view", "myapp.tasks.sync": "sync"}`.
            A value is the feature's name, or a mapping of "feature" and the options "feature_type", "action",
            "properties", "capture" and "on" of `track_feature`. `"myapp.reports:*": "*"` names each public function of
            a module. As text: entries `name=feature` with ";" between them, or a JSON object. Read once, by
            `ts-autotrack run`, `import ts_autotrack.auto` or `opentelemetry-instrument`.
        user: Name of the function that returns the acting user, such as "myapp.auth:current_user"; read likewise.
        integrations: Names of the integrations to activate, such as "celery"; "off" for none; "all", the default, for
            each framework that the program imports, beside which "threads" may be named. Read likewise.
        otel_features: Features by OpenTelemetry span: names of spans, and routes of server spans, such as
            `{"GET /reports/{id}": "report_view", "export-report": "report_export"}`. Read when an exporter or
            processor of `ts_autotrack.otel` is made.
        otel_properties: Names of attributes of spans and log records that become properties; read likewise.
        otel_errors: True if failed spans count, too. All events of spans then say so in `outcome`. Read likewise.
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
        durable: True for the end of a short process with an outbox, such as a command: the next process sends the rest.
            The call sends for half a second at most, and stops at the first failure. For a minute after such a wait in
            vain no other process waits. With `timeout=0` no request begins, and the call waits only for the end of a
            request under way. An event tracked later, by an exit hook for example, is delivered or in the outbox when
            its call returns. Without an outbox this argument changes nothing else.

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


def settings(**given: Any) -> dict[str, Any]:
    """Return the settings in force now, for tools that act on them.

    Args:
        **given: Values that count instead of those in force, as arguments of `configure()`.

    Returns:
        The value of each setting by its name in `configure()`: from there, the environment, the settings file, or the
        default. Credentials are left out.

    Raises:
        TypeError: If a name is no setting.
        ValueError: If a given value is not valid for its setting.

    Example:
        >>> from ts_autotrack import settings
        >>> settings()["max_queue"]
        100000
    """
    client.check_process()
    return public({**client.arguments, **client.forced, **given})


def stats() -> Stats:
    """Return the account of this process's events.

    Example:
        >>> from ts_autotrack import stats
        >>> stats().rejected
        0
    """
    return client.stats()
