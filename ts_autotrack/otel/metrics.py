"""The library's own metrics through the OpenTelemetry metrics API, under OpenTelemetry's names for telemetry SDKs.

| metric | value |
|---|---|
| `otel.sdk.processor.log.queue.size` | events that wait, without those of the request in progress |
| `otel.sdk.processor.log.queue.capacity` | the setting `max_queue` |
| `otel.sdk.processor.log.processed` | events that left the queue; dropped events have their reason as `error.type` |
| `otel.sdk.exporter.log.inflight` | events of the request in progress |
| `otel.sdk.exporter.log.exported` | delivered events; rejected events have `error.type` "rejected" |
| `otel.sdk.exporter.operation.duration` | seconds of a request; a failed one has `error.type` |

All but the last are read from `stats()` when the metrics are collected, so each process of a preforking server reports
its own numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.metrics import NoOpMeterProvider, Observation, get_meter_provider

from ts_autotrack import __version__, observe_requests, stats
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider

    from ts_autotrack.typing import FinishedRequest, Stats

ATTRIBUTES = {"otel.component.type": "ts_autotrack", "otel.component.name": "ts_autotrack/0"}
"""Attributes of every metric: a process has a single component of this type."""

_instrumented: list[MeterProvider | None] = []  # providers with metrics of this library; None: the global one


def instrument_metrics(meter_provider: MeterProvider | None = None) -> None:
    """Report queue, drops, deliveries and request times as OpenTelemetry metrics.

    Costs nothing for each event: values are read when metrics are collected, and each request records its duration. A
    further call with the same provider does nothing, nor does a call with a no-op provider.

    Args:
        meter_provider: Provider of the meter; default: the global one, also one that is set later.

    Raises:
        Nothing: a provider that raises is logged.

    Example:
        >>> from ts_autotrack.otel.metrics import instrument_metrics
        >>> instrument_metrics()
    """
    try:
        current = get_meter_provider()  # a stand-in until the application sets its own
        provider = meter_provider or current
        names = (provider, None) if provider is current else (provider,)
        if isinstance(provider, NoOpMeterProvider) or any(known is name for known in _instrumented for name in names):
            return
        _instrument(provider.get_meter("ts_autotrack", __version__))
        _instrumented.extend(names)
    except Exception as error:  # noqa: BLE001 - a provider of the application
        warn_once(
            "there are no metrics of this library: the meter provider raised %s. Check the application's OpenTelemetry "
            "metrics.",
            type(error).__name__,
        )


def _instrument(meter: Meter) -> None:
    sums, counters = meter.create_observable_up_down_counter, meter.create_observable_counter
    sums(f"{_PROCESSOR}.queue.size", [_one(_queue_size)], "{log_record}", "Events that wait.")
    sums(f"{_PROCESSOR}.queue.capacity", [_one(_capacity)], "{log_record}", "Events that may wait in memory.")
    counters(f"{_PROCESSOR}.processed", [_processed], "{log_record}", "Events that left the queue, or were dropped.")
    sums(f"{_EXPORTER}.log.inflight", [_one(_in_flight)], "{log_record}", "Events of the request in progress.")
    counters(f"{_EXPORTER}.log.exported", [_exported], "{log_record}", "Delivered events, and rejected ones.")
    duration = meter.create_histogram(f"{_EXPORTER}.operation.duration", "s", "Seconds of a request.")

    def record(request: FinishedRequest) -> None:
        duration.record(request.seconds, _duration_attributes(request))

    observe_requests(record)


def _one(read: Callable[[Stats], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    """Return the callback of a metric with a single value."""
    return lambda _: [Observation(read(stats()), ATTRIBUTES)]


def _queue_size(account: Stats) -> int:
    return max(0, account.pending - account.in_flight)


def _capacity(account: Stats) -> int:
    return account.capacity


def _in_flight(account: Stats) -> int:
    return account.in_flight


def _processed(_: CallbackOptions) -> Iterable[Observation]:
    account = stats()
    yield Observation(account.delivered + account.rejected, ATTRIBUTES)
    for reason, events in account.dropped.items():
        yield Observation(events, {**ATTRIBUTES, "error.type": reason})


def _exported(_: CallbackOptions) -> Iterable[Observation]:
    account = stats()
    yield Observation(account.delivered, ATTRIBUTES)
    if account.rejected:
        yield Observation(account.rejected, {**ATTRIBUTES, "error.type": "rejected"})


def _duration_attributes(request: FinishedRequest) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {**ATTRIBUTES}
    if request.status:
        attributes["http.response.status_code"] = request.status
    if request.error is not None:
        attributes["error.type"] = request.error
    return attributes


_PROCESSOR, _EXPORTER = "otel.sdk.processor.log", "otel.sdk.exporter"
