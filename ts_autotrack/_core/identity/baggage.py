"""OpenTelemetry baggage: the fallback for ids.

Baggage comes from outside: any caller of the service can send a `baggage` header. The library therefore reads only the
keys of an allowlist, ignores values that are long or have control characters, marks the event with
`context.identity_source`, says once that events are credited by baggage, and ignores the baggage that came in with a
request whose headers are not trusted.
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
MAX_READINGS = 400
"""Readings of a request's headers by a propagator; a request that needs more is not trusted with any baggage."""
_HEADER = "baggage"
_FORBIDDEN = {";", "\ufffd"}


class BaggageSettings:
    """The settings of baggage; immutable.

    Attributes:
        read: True if baggage names the user when nothing else does, False if not. None if the application has not
            chosen: baggage counts, and the first event credited by baggage is announced.
        user_keys: Keys of the user's id; the first present key counts.
        group_keys: Keys of the account's id, likewise.
        propagate: True if outgoing baggage carries the ids of the acting user. None if the application has not chosen.
        off: True if the library is disabled: no block may put ids into outgoing baggage.
    """

    __slots__ = ("group_keys", "off", "propagate", "read", "user_keys")

    def __init__(
        self,
        user_keys: tuple[str, ...] = USER_KEYS,
        group_keys: tuple[str, ...] = GROUP_KEYS,
        *,
        read: bool | None = None,
        propagate: bool | None = None,
        off: bool = False,
    ) -> None:
        self.user_keys = user_keys
        self.group_keys = group_keys
        self.read = read
        self.propagate = propagate
        self.off = off

    @property
    def key_lists(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Keys of the user's id, and keys of the account's id."""
        return self.user_keys, self.group_keys

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BaggageSettings) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]  # as the other groups of settings

    def __repr__(self) -> str:
        return f"BaggageSettings({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


in_force = BaggageSettings()
"""The settings of this process; replaced as a whole when the settings change."""
distrusting: BaggageSettings | None = None
"""The settings in force when a request came whose headers are not trusted; None before the first such request."""


def distrust() -> None:
    """Note that a request has come whose headers are not trusted."""
    global distrusting  # noqa: PLW0603 - one flag for the process
    distrusting = in_force


def counts_outside_of_requests() -> bool:
    """Return True if baggage counts outside of request scopes.

    Instrumentations of threads carry the baggage of a request into threads that know nothing of the request. Once a
    request has come whose headers are not trusted, baggage there counts only if the setting says so.
    """
    return in_force.read is True or distrusting is not in_force


def current_context() -> Context | None:
    """Return the current OpenTelemetry context; None if no baggage can be in force."""
    # A program must import the module to set baggage, and most programs never do.
    if in_force.read is False or "opentelemetry.baggage" not in sys.modules:
        return None
    from opentelemetry.context import get_current

    return get_current() or None


def read_ids(context: Context, distrusted: Distrusted | None = None) -> tuple[str | None, str | None]:
    """Return the user id and the group id in the baggage of `context`; None for an absent id."""
    baggage = sys.modules["opentelemetry.baggage"].get_all(context)
    if distrusted is not None and baggage:
        baggage = {key: value for key, value in baggage.items() if not distrusted.has(key, value)}
    return ids_in(baggage)


def ids_in(entries: Mapping[str, object]) -> tuple[str | None, str | None]:
    """Return the user id and the group id in the entries of a baggage; None for an absent id."""
    return _first(entries, in_force.user_keys), _first(entries, in_force.group_keys)


def _first(entries: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = entries.get(key)
        if isinstance(value, str) and is_portable(text := _without_properties(value)):
            return text
    return None


def _without_properties(value: str) -> str:
    """Return the value of an entry without its properties; an empty text if its end cannot be told.

    OpenTelemetry for Python decodes an entry as a whole: "user_123;source=web" has a property, but "acme;7" may be an
    id that was sent as "acme%3B7", and "acme" another customer.
    """
    text, semicolon, properties = str.partition(value, ";")
    return "" if semicolon and "=" not in properties.partition(";")[0] else text.strip()


def is_portable(text: str) -> bool:
    """Return True if an id can travel in baggage unchanged, and may be read from baggage."""
    # U+FFFD stands for bytes that are no text: ids of several users would become one.
    return 0 < len(text) <= MAX_LENGTH and _FORBIDDEN.isdisjoint(text) and text.isprintable() and text == text.strip()


def announce() -> None:
    """Say once that events are credited by baggage, unless the application has chosen so."""
    if in_force.read is None:
        users, groups = " or ".join(in_force.user_keys), " or ".join(in_force.group_keys)
        warn_once(
            "baggage",
            f"events are credited by OpenTelemetry baggage (user: {users}; account: {groups}). Every client that can "
            "send a `baggage` header can set these ids. Set TS_AUTOTRACK_BAGGAGE=1 to confirm, or "
            "TS_AUTOTRACK_BAGGAGE=0 to ignore baggage.",
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
    values: dict[str, list[str]] = {}
    for name, value in given.items() if hasattr(given, "items") else given:
        values.setdefault(str(name).lower(), []).append(str(value))
    # Of a name that comes several times, some servers join the values, and some instrumentations read one value only.
    carriers = [{name: ",".join(several) for name, several in values.items()}]
    carriers += [
        {name: several[position] for name, several in values.items() if position < len(several)}
        for position in range(max(map(len, values.values()), default=0))
    ]
    entries = [{_HEADER: entry} for value in values.get(_HEADER, ()) for entry in value.split(",")]
    if len(carriers) + len(entries) > MAX_READINGS:
        message = "more entries than any propagator reads"
        raise ValueError(message)
    found: set[tuple[str, object]] = set()
    for propagator, read in ((W3CBaggagePropagator(), carriers + entries), (propagate.get_global_textmap(), carriers)):
        for carrier in read:
            found |= get_all(propagator.extract(carrier, context=Context())).items()
    return found
