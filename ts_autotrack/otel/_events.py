"""Parts of spans and log events: their ids, their properties, and the hand-over to `track`."""

from __future__ import annotations

import time
from collections import deque
from contextvars import Context
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from weakref import ref

from opentelemetry import baggage
from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import format_span_id, format_trace_id

from ts_autotrack import flush, track
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context as BaggageContext

    from ts_autotrack.otel._options import Options

FEATURE = "feature.name"
_PREFIX = "feature."
_RECENT = 1_000_000_000
"""Nanoseconds. A younger event is tracked as of now: the library then spaces the timestamps of a user."""
MAX_KEPT = 4_096
"""Subjects without weak references that are kept: twice the queue of a batch processor."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Flushes:
    """Base of the processors and exporters: all wait for delivery in the same way."""

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Wait until the events so far have arrived.

        Args:
            timeout_millis: Maximum wait in milliseconds; None for 30 seconds.

        Returns:
            True if all events are settled, as `ts_autotrack.flush`.
        """
        return flush(30 if timeout_millis is None else timeout_millis / 1_000)


class Made:
    """The spans or log records that have made an event, as long as they live: each makes one event at most.

    A processor and an exporter may see the same span.
    """

    __slots__ = ("_kept", "_refs")

    def __init__(self) -> None:
        self._refs: dict[int, Callable[[], object]] = {}
        self._kept: deque[int] = deque()

    def add(self, subject: object) -> None:
        """Note a span, or the attributes of a record."""
        number, refs = id(subject), self._refs
        try:
            refs[number] = ref(subject, lambda _: refs.pop(number, None))
        except TypeError:  # a dict or None: another processor has replaced the attributes of a record
            if not subject:
                return  # nobody is named: an exporter makes no event
            refs[number] = lambda: subject
            self._kept.append(number)
            if len(self._kept) > MAX_KEPT:
                refs.pop(self._kept.popleft(), None)

    def __contains__(self, subject: object) -> bool:
        """Return True if the subject has made an event."""
        known = self._refs.get(id(subject))
        return known is not None and known() is subject


def own_properties(attributes: Mapping[str, Any], options: Options, body: object = None) -> dict[str, Any]:
    """Return the properties of an event: the attributes `feature.*`, and attributes or body fields that are allowed.

    Args:
        attributes: Attributes of the span or log record.
        options: Options with the names of allowed attributes.
        body: Body of the log record; the name "body" allows all of it, other names allow its fields.
    """
    properties = {name.replace(".", "_"): attributes[name] for name in attributes if name.startswith(_PREFIX)}
    fields: Mapping[str, Any] = body if isinstance(body, dict) else {}
    for name in options.properties:
        if name in attributes:
            properties[name] = attributes[name]
        elif name in fields:
            properties[name] = fields[name]
        elif name == "body" and body is not None:
            properties[name] = body
    return properties


def send(
    event_name: str,
    properties: Mapping[str, Any],
    attributes: Mapping[str, Any],
    at: int | None,
    ids: tuple[int, int],
    *,
    parent: BaggageContext | None,
    options: Options,
) -> None:
    """Track an event for the user in the attributes, else for the user who acts in the current context.

    Args:
        event_name: Name of the event.
        properties: Properties of the event.
        attributes: Attributes of the span or log record.
        at: Time in nanoseconds since 1970.
        ids: Trace id and span id; zeros without a span.
        parent: OpenTelemetry context whose baggage counts; None for the current one.
        options: Options of the processor or exporter: its keys of ids, and whether baggage may name the user.
    """
    context = visible = get_current() if parent is None else parent
    if not options.baggage and baggage.get_all(context):
        visible = baggage.clear(context)
    token = None if parent is None and visible is context else attach(visible)
    trace = {"trace_id": format_trace_id(ids[0]), "span_id": format_span_id(ids[1])} if ids[0] else {}
    try:
        track(
            event_name,
            properties,
            user_id=_first(attributes, options.user_keys),
            group_id=_first(attributes, options.group_keys),
            timestamp=_moment(at),
            context=trace,
        )
    finally:
        if token is not None:
            detach(token)


def _moment(at: int | None) -> datetime | None:
    """Return a time of the past, or else None for now; also for a time beyond all calendars, as in a wrong unit."""
    if at is None or abs(time.time_ns() - at) <= _RECENT:
        return None
    try:
        return _EPOCH + timedelta(microseconds=at // 1_000)
    except OverflowError:
        return None


def with_nobody(function: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Call a function in a context without user and baggage: exporters run in any thread, also in one of a user."""
    Context().run(function, *args, **kwargs)


def _first(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    """Return the first id; an empty text, which means nobody, for an id that the SDK may have cut; None without one."""
    for key in keys:
        value = attributes.get(key)
        if value is not None and value != "":
            limit = getattr(attributes, "max_value_len", None)
            if limit is None or not isinstance(value, str) or len(value) < limit:
                return value
            warn_once(
                f"the attribute {key} is ignored: it has the {limit} characters that OpenTelemetry allows, and may be "
                "cut to the id of somebody else. Raise OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, or the limit set in code."
            )
            return ""
    return None
