"""OpenTelemetry baggage: the fallback for ids.

Baggage comes from outside: any caller of the service can send a `baggage` header. The library therefore reads only the
keys of an allowlist, limits the length of values, marks the event with `context.identity_source`, says once that events
are credited by baggage, and ignores the baggage that came in with a request whose headers are not trusted.
"""

from __future__ import annotations

import sys

from ts_autotrack._core.diagnostics import warn_once

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeAlias

    from opentelemetry.context import Context

    Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
    """Headers of a request; a name may come several times."""

USER_KEYS = ("user.id", "enduser.id")
GROUP_KEYS = ("group.id", "account.id", "tenant.id", "organization.id")
MAX_LENGTH = 256
"""Characters of an id; longer values are ignored."""

enabled = True
"""The setting BAGGAGE."""
chosen = False
"""True if the application has chosen the setting BAGGAGE."""


def current_context() -> Context | None:
    """Return the current OpenTelemetry context; None if no baggage can be in force."""
    # A program must import the module to set baggage, and most programs never do.
    if not enabled or "opentelemetry.baggage" not in sys.modules:
        return None
    from opentelemetry.context import get_current

    return get_current() or None


def read_ids(context: Context, distrusted: Distrusted | None = None) -> tuple[str | None, str | None]:
    """Return the user id and the group id in the baggage of `context`; None for an absent id."""
    baggage = sys.modules["opentelemetry.baggage"].get_all(context)
    if distrusted is not None and baggage:
        baggage = {key: value for key, value in baggage.items() if not distrusted.has(key, value)}
    return _first(baggage, USER_KEYS), _first(baggage, GROUP_KEYS)


def _first(baggage: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = baggage.get(key)
        if isinstance(value, str) and 0 < len(value.strip()) <= MAX_LENGTH:
            return value
    return None


def announce() -> None:
    """Say once that events are credited by baggage, unless the application has chosen so."""
    if not chosen:
        warn_once(
            "baggage",
            "events are credited by OpenTelemetry baggage (user.id or enduser.id; group.id, account.id, tenant.id or "
            "organization.id). Every client that can send a `baggage` header can set these ids. Set "
            "TS_AUTOTRACK_BAGGAGE=1 to confirm, or TS_AUTOTRACK_BAGGAGE=0 to ignore baggage.",
        )


class Distrusted:
    """The baggage that came in with the headers of a request; read when the first event asks.

    The application's propagators decide how baggage is written in headers, so they read it here, too.
    """

    __slots__ = ("_entries", "_headers")

    def __init__(self, headers: Headers | Callable[[], Headers]) -> None:
        self._headers: Headers | Callable[[], Headers] | None = headers
        self._entries: set[tuple[str, object]] | None = None

    def has(self, key: str, value: object) -> bool:
        """Return True if this entry came in with the request; also if the headers cannot be read. Never raises."""
        if self._headers is not None:
            try:
                self._entries = _entries_of(self._headers)
            except Exception:  # noqa: BLE001 - headers or a propagator of the application
                self._entries = None
            self._headers = None
        return self._entries is None or (key, value) in self._entries


def _entries_of(headers: Headers | Callable[[], Headers]) -> set[tuple[str, object]]:
    from opentelemetry import propagate
    from opentelemetry.baggage import get_all
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.context import Context

    given: Any = headers() if callable(headers) else headers
    carrier: dict[str, str] = {}
    for name, value in given.items() if hasattr(given, "items") else given:
        key = str(name).lower()
        carrier[key] = f"{carrier[key]},{value}" if key in carrier else str(value)
    found: set[tuple[str, object]] = set()
    for propagator in (W3CBaggagePropagator(), propagate.get_global_textmap()):
        found |= get_all(propagator.extract(carrier, context=Context())).items()
    return found
