"""Log events to events: a processor, and an exporter for `OTEL_LOGS_EXPORTER=thrivestack`.

A log record with an `event_name` becomes an event of this name; all others, such as those of the `logging` module, are
left alone. The user is the user in the record's attributes (`user.id`, `enduser.id`; `group.id`, `account.id`,
`tenant.id`, `organization.id`), else the user who acts where the record is emitted, else the user in the baggage there;
baggage counts only with TS_AUTOTRACK_BAGGAGE=1. Of the other attributes only `feature.*` and those in
TS_AUTOTRACK_OTEL_PROPERTIES become properties; the same names allow fields of the body, and "body" all of it.

The processor sees attributes, acting user and baggage, and loses nothing. An exporter stands behind the batch
processor, which drops the oldest of more than 2,048 waiting records and empties their contexts. So the exporter adds
the processor to its provider with its first batch; the instrumentor of `opentelemetry-instrument` does so at once. A
record makes one event at most.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from opentelemetry import _logs
from opentelemetry.context import get_current
from opentelemetry.sdk._logs import LogRecordProcessor

from ts_autotrack.integrations._log import warn_once
from ts_autotrack.otel._events import Flushes, Made, own_properties, send, with_nobody
from ts_autotrack.otel._options import NAMES, read_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
    from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

    from ts_autotrack.otel._options import Options
else:
    try:
        from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
    except ImportError:  # an exception here would end the set-up of OpenTelemetry
        from opentelemetry.sdk._logs.export import LogExporter as LogRecordExporter
        from opentelemetry.sdk._logs.export import LogExportResult as LogRecordExportResult

        warn_once("no log event becomes an event: install opentelemetry-sdk 1.39 or newer")

_NEVER = sys.maxsize
_made = Made()
"""Attributes of the records: the batch processor copies a record, and leaves its attributes the same object."""
_processors: WeakSet[ThriveStackLogRecordProcessor] = WeakSet()
"""Processors added here, to any provider."""
_exporters: WeakSet[ThriveStackLogExporter] = WeakSet()


class ThriveStackLogRecordProcessor(Flushes, LogRecordProcessor):
    """Makes events of log records that have an `event_name`, on the caller's thread.

    The argument replaces the setting TS_AUTOTRACK_OTEL_PROPERTIES; unknown or bad arguments are ignored with a warning.
    Nothing here raises.

    Args:
        properties: Names of attributes, or of fields of the body, that become properties.

    Attributes:
        closed: True after `shutdown()`.
        provider: Returns the provider to which an exporter has added the processor; None for other processors.
        since: Nanoseconds since 1970 at which an exporter had added the processor; records emitted later are left to
            the processor.

    Example:
        >>> from opentelemetry.sdk._logs import LoggerProvider
        >>> from ts_autotrack.otel.logs import ThriveStackLogRecordProcessor
        >>> provider = LoggerProvider()
        >>> provider.add_log_record_processor(ThriveStackLogRecordProcessor(properties=["role"]))
    """

    def __init__(self, **options: Any) -> None:
        self._options = read_options(type(self).__name__, options)
        self.closed = False
        self.provider: Callable[[], object] = lambda: None
        self.since = _NEVER

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Make the event of a record that has an `event_name`."""
        try:
            record = log_record.log_record
            if record.event_name and not self.closed and record.attributes not in _made:
                _made.add(record.attributes)
                _send(record, self._options)
        except RecursionError:  # the stack has no space for a call of `_warn_of_fault`
            pass
        except Exception as error:  # noqa: BLE001 - the application's log call goes on
            _warn_of_fault(error)

    def shutdown(self) -> None:
        """Make no more events of records. The library goes on: it delivers until the end of the process."""
        self.closed = True


class ThriveStackLogExporter(Flushes, LogRecordExporter):
    """Makes events of exported log records: the exporter "thrivestack" of OTEL_LOGS_EXPORTER and declarative files.

    Its first batch adds a `ThriveStackLogRecordProcessor` to the global provider, if that is where the records come
    from. Earlier records, and records of another provider, have the user in their attributes. Behind the simple
    processor, baggage can name their user, too. The processor has the same options.

    Example:
        >>> from opentelemetry.sdk._logs import LoggerProvider
        >>> from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        >>> from ts_autotrack.otel.logs import ThriveStackLogExporter
        >>> provider = LoggerProvider()
        >>> provider.add_log_record_processor(BatchLogRecordProcessor(ThriveStackLogExporter()))
    """

    def __init__(self, **options: Any) -> None:
        self._options = read_options(type(self).__name__, options)
        _exporters.add(self)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Make the events of records that have made none. Always a success: the events are in the library's account."""
        try:
            provider = _logs.get_logger_provider()
            own = bool(batch) and getattr(provider, "resource", None) is batch[0].resource
            processor = _processor_of(provider) if own else None
            since = _NEVER if processor is None else processor.since
            for exported in batch:
                self._count(exported.log_record, since)
            if own:
                self.complete(provider)
        except RecursionError:
            pass
        except Exception as error:  # noqa: BLE001 - the SDK's thread goes on
            _warn_of_fault(error)
        return LogRecordExportResult.SUCCESS

    def _count(self, record: LogRecord, since: int) -> None:
        try:
            # The processor makes the events of later records, also if it stands behind this exporter.
            if record.event_name and record.attributes not in _made and (record.observed_timestamp or 0) <= since:
                _made.add(record.attributes)
                with_nobody(_send, record, self._options)
        except Exception as error:  # noqa: BLE001 - the other records of the batch count
            _warn_of_fault(error)

    def complete(self, provider: object) -> None:
        """Add a processor with the options of this exporter to a provider, unless the provider has one from here."""
        add_processor(provider, {name: getattr(self._options, name) for name in NAMES})

    def shutdown(self) -> None:
        """Do nothing: the library delivers until the end of the process."""


def complete_exporters() -> None:
    """Add the processor to the global provider for the exporters made so far."""
    for exporter in list(_exporters):
        exporter.complete(_logs.get_logger_provider())


def add_processor(provider: Any, options: Mapping[str, Any]) -> None:
    """Add a processor to a provider, once."""
    if hasattr(provider, "add_log_record_processor") and _processor_of(provider) is None:
        processor = ThriveStackLogRecordProcessor(**options)
        processor.provider = ref(provider)
        _processors.add(processor)
        provider.add_log_record_processor(processor)
        processor.since = time.time_ns()


def _processor_of(provider: object) -> ThriveStackLogRecordProcessor | None:
    """Return the processor that was added here to a provider, and that is open."""
    return next((each for each in list(_processors) if each.provider() is provider and not each.closed), None)


def _send(record: LogRecord, options: Options) -> None:
    attributes: Mapping[str, Any] = record.attributes or {}
    context = record.context or None
    send(
        record.event_name or "",
        own_properties(attributes, options, record.body),
        attributes,
        record.timestamp or record.observed_timestamp,
        (record.trace_id or 0, record.span_id or 0),
        parent=None if context is None or context is get_current() else context,
        options=options,
    )


def _warn_of_fault(error: Exception) -> None:
    warn_once(f"a log record was not examined ({type(error).__name__}); please report this")
