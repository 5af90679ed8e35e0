"""Events as captured: the template shared by many events, and the parts of a single event."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, TypeAlias

    from ts_autotrack._core.identity.scope import Scope

    Extras: TypeAlias = dict[str, Any] | tuple[Any, ...] | None
    """Properties or traits of an event. A tuple holds the values of the template's `captured` names."""
    SpanIds: TypeAlias = tuple[int, int]
    """Ids of a trace and a span of OpenTelemetry. The span itself would keep its attributes alive."""
    Moment: TypeAlias = int | str | tuple[int | str, SpanIds]
    """Nanoseconds since 1970, or the application's timestamp as text; with the ids of the event's span, if any."""
    Record: TypeAlias = tuple["EventTemplate | CodeType", Scope, Moment, Extras]
    """Template, scope, moment, extras.

    A watched function leaves its code in place of the template: finding the template would take a fifth of the call.
    A tuple, because each call builds one: 30 ns against 415 ns for a frozen dataclass.
    """


class EventTemplate:
    """The common part of all events of one decorated function, or of one event name.

    Attributes:
        path: Endpoint, such as "/track".
        event_name: Name of the event; empty for the other endpoints.
        properties: Properties of every event.
        captured: Names of the captured arguments. An event carries their values as a tuple: a dict takes four times
            the memory and longer to build.
        where: Place in the application, such as "module.function, line 5", for messages.
        user_id: Overrides the scope's user, an empty text by nobody.
        group_id: Overrides the scope's group, an empty text by none.
        size: Bytes to count against the memory budget; 0 if many events share the template, or it is short.
        encoded: Encoder's cache: the fields before the properties or traits, and their JSON.
    """

    __slots__ = ("captured", "encoded", "event_name", "group_id", "path", "properties", "size", "user_id", "where")

    def __init__(
        self,
        path: str,
        event_name: str,
        properties: dict[str, object],
        where: str,
        user_id: str | None = None,
        group_id: str | None = None,
        captured: tuple[str, ...] = (),
        size: int = 0,
    ) -> None:
        self.path = path
        self.event_name = event_name
        self.properties = properties
        self.where = where
        self.user_id = user_id
        self.group_id = group_id
        self.captured = captured
        self.size = size
        self.encoded: tuple[bytes, bytes] | None = None

    def by_name(self, extras: Extras) -> dict[str, Any]:
        """Return the extras of an event as a dict."""
        if isinstance(extras, tuple):
            return dict(zip(self.captured, extras, strict=True))
        return extras or {}


watched_templates: dict[int, EventTemplate] = {}
"""Templates of watched functions, by the id of their code, as long as the code lives."""


def template_of(subject: EventTemplate | CodeType) -> EventTemplate | None:
    """Return the template of a record's first part; None for code that this library does not watch."""
    return subject if isinstance(subject, EventTemplate) else watched_templates.get(id(subject))


def time_of(moment: Moment) -> int | str:
    """Return the time of a record's moment."""
    return moment[0] if isinstance(moment, tuple) else moment
