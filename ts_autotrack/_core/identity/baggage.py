"""OpenTelemetry baggage as the fallback for identity.

Baggage comes from outside: whoever calls the service can send a `baggage` header. So only an allowlist of keys is
read, values have a length cap, and an event that took an id from it says so in `context.identity_source`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ts_autotrack._core.identity.scope import Scope

USER_KEYS = ("user.id", "enduser.id")
GROUP_KEYS = ("group.id", "account.id", "tenant.id", "organization.id")
MAX_LENGTH = 256
"""Characters; a longer id is no id."""

enabled = True
"""The setting BAGGAGE."""


def fill(scope: Scope) -> Scope:
    """Return `scope` with the ids that it lacks and the current baggage has; `scope` itself if there are none."""
    # No baggage can be set by a program that has not loaded it, and most programs have not.
    api = sys.modules.get("opentelemetry.baggage")
    if not enabled or api is None:
        return scope
    from opentelemetry.context import get_current

    context = get_current()
    if not context:
        return scope
    filled = scope.filled
    if filled is None or filled[0] is not context:
        filled = scope.filled = (context, _fill(scope, api.get_all(context)))
    return filled[1]


def _fill(scope: Scope, baggage: Mapping[str, object]) -> Scope:
    user = None if scope.user_id else _first(baggage, USER_KEYS)
    group = None if scope.group_id else _first(baggage, GROUP_KEYS)
    if user is None and group is None:
        return scope
    derived = scope.derive(user, group, {"identity_source": "baggage"})
    derived.weigh()
    return derived


def _first(baggage: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = baggage.get(key)
        if isinstance(value, str) and 0 < len(value.strip()) <= MAX_LENGTH:
            return value
    return None
