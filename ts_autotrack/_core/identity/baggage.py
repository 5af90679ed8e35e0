"""OpenTelemetry baggage: the fallback for ids.

Baggage comes from outside: any caller of the service can send a `baggage` header. The library therefore reads only the
keys of an allowlist, limits the length of values, and marks the event with `context.identity_source`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

USER_KEYS = ("user.id", "enduser.id")
GROUP_KEYS = ("group.id", "account.id", "tenant.id", "organization.id")
MAX_LENGTH = 256
"""Characters of an id; longer values are ignored."""

enabled = True
"""The setting BAGGAGE."""


def current_context() -> Context | None:
    """Return the current OpenTelemetry context; None if no baggage can be in force."""
    # A program must import the module to set baggage, and most programs never do.
    if not enabled or "opentelemetry.baggage" not in sys.modules:
        return None
    from opentelemetry.context import get_current

    return get_current() or None


def read_ids(context: Context) -> tuple[str | None, str | None]:
    """Return the user id and the group id in the baggage of `context`; None for an absent id."""
    baggage = sys.modules["opentelemetry.baggage"].get_all(context)
    return _first(baggage, USER_KEYS), _first(baggage, GROUP_KEYS)


def _first(baggage: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = baggage.get(key)
        if isinstance(value, str) and 0 < len(value.strip()) <= MAX_LENGTH:
            return value
    return None
