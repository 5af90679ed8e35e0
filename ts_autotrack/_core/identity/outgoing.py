"""Ids in outgoing OpenTelemetry baggage: only if the application asks for it.

The ids are written when a request is sent, not when a block is entered: `bind_user` in another thread, or a block that
ends in another context, could neither attach an OpenTelemetry context nor detach it.
"""

from __future__ import annotations

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.identity import baggage

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from ts_autotrack._core.identity.baggage import BaggageSettings


def apply(settings: BaggageSettings) -> None:
    """Put the settings of baggage into force."""
    baggage.in_force = settings
    if settings.propagate:
        write_ids()


def write_ids() -> None:
    """Have the ids of the acting user written into outgoing baggage, wherever this is asked for. Never raises."""
    if baggage.in_force.off:
        return
    try:
        # Lazily: only an application that asks for it needs the propagators of OpenTelemetry.
        from ts_autotrack._core.identity.propagator import wrap_global_propagator

        wrap_global_propagator()
    except Exception as error:  # noqa: BLE001 - the import loads the propagators that OTEL_PROPAGATORS names
        warn_once(
            ("propagate", "failed"),
            "outgoing baggage carries no ids: the propagators of OpenTelemetry failed to load "
            f"({type(error).__name__}). Check OTEL_PROPAGATORS.",
        )
