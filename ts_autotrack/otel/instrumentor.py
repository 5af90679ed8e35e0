"""The instrumentor of `opentelemetry-instrument`: activates the features and integrations that the settings name.

Functions, routes and tasks are tracked as below `ts-autotrack run`, and spans with features besides. Below
`ts-autotrack run` each framework gets its integration; here only a framework that TS_AUTOTRACK_INTEGRATIONS names, or
that a route, task, command, tool, RPC or field in TS_AUTOTRACK_FEATURES needs.

    $ export TS_AUTOTRACK_OTEL_FEATURES="GET /reports/{id}=report_view" TS_AUTOTRACK_INTEGRATIONS=threads
    $ opentelemetry-instrument python app.py

The settings come from the environment: the program, and with it the program's settings file, is not known yet.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]  # opts out of typing

from ts_autotrack.integrations._by_name import activate, deactivate
from ts_autotrack.integrations._log import warn_once
from ts_autotrack.launcher import _activation
from ts_autotrack.otel._options import PREFIX, read_options, read_settings

if TYPE_CHECKING:
    from collections.abc import Collection

_OPTIONS = ("features", "properties", "errors", "integrations")


class ThriveStackInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # likewise
    """Makes events of the spans named in TS_AUTOTRACK_OTEL_FEATURES, and activates TS_AUTOTRACK_FEATURES and
    TS_AUTOTRACK_INTEGRATIONS.

    It also adds the processors of `ts_autotrack.otel` for exporters named "thrivestack". A second call changes nothing.
    Nothing here raises: a bad setting or option is one warning.

    Example:
        >>> from ts_autotrack.otel.instrumentor import ThriveStackInstrumentor
        >>> ThriveStackInstrumentor().instrument(integrations=["threads"])
        >>> ThriveStackInstrumentor().uninstrument()
    """

    _active: tuple[str, ...] = ()
    _has_activated = False
    _processor: Any = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return no packages: the settings name the integrations."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        try:
            given = {name if name == "integrations" else PREFIX + name: value for name, value in kwargs.items()}
            values = read_settings(type(self).__name__, given, PREFIX, _OPTIONS)
            if "integrations" in kwargs:
                self._active = tuple(activate(values["integrations"]))
            else:
                self._has_activated = _activation.activate(only_needed=True)
            self._complete_spans(values)
            if "opentelemetry.sdk._logs" in sys.modules:
                from ts_autotrack.otel import logs

                logs.complete_exporters()
        except Exception as error:  # noqa: BLE001 - an exception would end the set-up of OpenTelemetry
            warn_once(f"OpenTelemetry's instrumentor failed ({type(error).__name__}: {error}); please report this")

    def _uninstrument(self, **_: Any) -> None:
        deactivate(self._active)
        self._active = ()
        if self._has_activated and not _activation.is_launched():  # the launcher's work stays
            _activation.deactivate()
        self._has_activated = False
        if self._processor is not None:
            self._processor.shutdown()  # no provider can remove a processor
            self._processor = None

    def _complete_spans(self, values: dict[str, Any]) -> None:
        """Add a span processor, if the settings or an exporter ask for one."""
        from opentelemetry import trace

        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            if values["otel_features"]:
                warn_once(
                    "no span becomes an event: no tracer provider is set. Call set_tracer_provider() of "
                    "opentelemetry.trace before ThriveStackInstrumentor().instrument(), or run the program under "
                    "opentelemetry-instrument"
                )
        elif "opentelemetry.sdk.trace" in sys.modules:
            from ts_autotrack.otel import spans

            spans.complete_exporters()
            if values["otel_features"]:
                options = {name: values[PREFIX + name] for name in _OPTIONS if name != "integrations"}
                self._processor = spans.add_processor(provider, read_options(type(self).__name__, options))
