"""The propagators of OpenTelemetry that write the ids of the acting user into outgoing baggage.

Imported only if the application asks for the ids in outgoing baggage, or names `ts_autotrack` in OTEL_PROPAGATORS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.baggage import get_all, remove_baggage, set_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.textmap import TextMapPropagator, default_getter, default_setter

from ts_autotrack._core.diagnostics import fault, warn_once
from ts_autotrack._core.identity import baggage
from ts_autotrack._core.identity.request_view import RequestView
from ts_autotrack._core.identity.scope import current, nearest_open

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

    from ts_autotrack._core.identity.scope import Scope

_HEADER = "baggage"
_WRITERS = {_HEADER, "uber-trace-id"}
"""Header names of the propagators that write baggage: W3C's, and Jaeger's with a header for each entry."""


def wrap_global_propagator() -> None:
    """Wrap the global propagator, unless it is wrapped already."""
    from opentelemetry import propagate  # loads the propagators that OTEL_PROPAGATORS names

    # None while the module loads `BaggagePropagator`, which then writes the ids.
    get, replace = getattr(propagate, "get_global_textmap", None), getattr(propagate, "set_global_textmap", None)
    if get is None or replace is None or isinstance(get(), IdsPropagator):
        return
    inner = get()
    replace(IdsPropagator(inner))
    if _WRITERS.isdisjoint(inner.fields):
        warn_once(
            ("propagate", "no baggage"),
            "outgoing baggage carries no ids: the propagators of OpenTelemetry write no `baggage` header. Add baggage "
            "to OTEL_PROPAGATORS, such as tracecontext,baggage.",
        )


class IdsPropagator(TextMapPropagator):
    """The application's own propagators, given a context whose baggage has the ids of the acting user.

    Args:
        inner: The global propagator so far.
    """

    def __init__(self, inner: TextMapPropagator) -> None:
        self._inner = inner

    def extract(self, carrier: Any, context: Context | None = None, getter: Any = default_getter) -> Context:
        """Do as the application's propagators do."""
        return self._inner.extract(carrier, context=context, getter=getter)

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        """Write the context with the ids."""
        self._inner.inject(carrier, context=with_ids(context), setter=setter)

    @property
    def fields(self) -> set[str]:
        """Header names that `inject` writes."""
        return self._inner.fields


class BaggagePropagator(W3CBaggagePropagator):
    """The propagator `ts_autotrack` of OTEL_PROPAGATORS: W3C baggage with the ids of the acting user.

    It takes the place of `baggage`, and may stand behind it: `OTEL_PROPAGATORS=tracecontext,baggage,ts_autotrack`.
    """

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        """Write the baggage of the context with the ids."""
        changed = with_ids(context, by_default=True)
        super().inject(carrier, changed, setter)
        if get_all(context) and not get_all(changed):
            setter.set(carrier, _HEADER, "")  # in place of the header of the propagator `baggage`


def with_ids(context: Context | None, *, by_default: bool = False) -> Context | None:
    """Return an OpenTelemetry context whose baggage names the acting user, if the ids are to travel. Never raises.

    Ids of another user are replaced. Ids that came in with a request whose headers are not trusted are left out: the
    next service trusts this service.

    Args:
        context: The context to send; None for the current context.
        by_default: True if the ids travel without a block or a setting that says so.
    """
    try:
        settings, scope = baggage.in_force, nearest_open(current())
        choice = scope.entry.propagate if scope.entry is not None else None
        if choice is None:
            choice = by_default if settings.propagate is None else settings.propagate
        if not choice or settings.off:
            return context
        entries = get_all(context)
        wanted = _wanted(scope, entries)
        for key in entries.keys() - wanted.keys():
            context = remove_baggage(key, context)
        for key, value in wanted.items():
            if key not in entries or entries[key] != value:
                context = set_baggage(key, value, context)
    except RecursionError:  # the stack has no space for a call of `fault`
        pass
    except Exception as error:  # noqa: BLE001 - the barrier
        fault("writing the acting user into outgoing baggage", error)
    return context


def _wanted(scope: Scope, entries: Mapping[str, object]) -> dict[str, object]:
    """Return the entries to send: the entries of the context, with the ids of the acting user."""
    settings = baggage.in_force
    wanted = {**entries}
    distrusted = scope.actor.request.distrusted if isinstance(scope, RequestView) else None
    if distrusted is not None:
        for key in {*settings.user_keys, *settings.group_keys} & wanted.keys():
            if distrusted.has(key, wanted[key]):
                del wanted[key]
    resolved = scope.resolve()
    user, group = (None, None) if resolved.suppressed else (resolved.known().user_id, resolved.known().group_id)
    if user is None:
        return wanted
    found = baggage.ids_in(wanted)
    portable = _portable((user, group))
    for keys, other, own, written in zip(settings.key_lists, found, (user, group), portable, strict=True):
        if other != own:  # of another user; an id that is there already may have another key
            for key in keys:
                wanted.pop(key, None)
            if written is not None:
                wanted[keys[0]] = written
    return wanted


def _portable(ids: tuple[str, str | None]) -> tuple[str | None, str | None]:
    """Return the ids that can travel: no account travels without its user."""
    user, group = (text if text is not None and baggage.is_portable(text) else None for text in ids)
    if (user, group) != ids:
        warn_once(
            ("propagate", "ids"),
            f"outgoing baggage carries no ids that have control characters, a semicolon, or more than "
            f"{baggage.MAX_LENGTH} characters; such an id was given to user_context, bind_user or a resolver.",
        )
    return user, group if user is not None else None
