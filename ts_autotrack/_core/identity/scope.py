"""Who is acting, as a capture finds it when it asks.

A `Scope` is not changed once it is current, so a reference to it is a snapshot of the identity at that moment.
"""

from __future__ import annotations

from contextvars import ContextVar

from ts_autotrack._core.counters import MeteredDict
from ts_autotrack._core.identity import baggage
from ts_autotrack._core.snapshot import snapshot

TYPE_CHECKING = False  # typing costs as much to import as all of this library
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from typing import Any

    from ts_autotrack._core.delivery.encoder import Actor
    from ts_autotrack._core.identity.blocks import ScopeBlock

_NOTHING: dict[str, object] = {}


class Scope:
    """The identity, context and properties that hold for a stretch of work.

    Attributes:
        ready: Whether a capture may take this scope as it is: user and group known, not suppressed, not closed.
        muted: Whether a capture may take it that the scope is suppressed: so it is, and not closed.
        owner: The block that made it, None outside of every block.
        outer: The scope to go back to when that block ends.
        unbound: The scope without what `bind_user` bound, if that made this one; else None.
        origin: The scope that the block made, if this one replaced it (`bind_user` inside the block); else None.
            Not the scope itself: that would keep each of them, and what it holds, until a garbage collection.
        encoded: What the worker has encoded of it.
        token: Undoes the entering, in the context that entered.
        filled: The last OpenTelemetry context and the scope that its baggage made of this one.
        size: Bytes of what is long in its context and properties; 0 for the others.
        weight: Counters these, see `weigh`.
    """

    __slots__ = (
        "closed",
        "context",
        "encoded",
        "filled",
        "group_id",
        "muted",
        "origin",
        "outer",
        "owner",
        "properties",
        "ready",
        "size",
        "suppressed",
        "token",
        "unbound",
        "user_id",
        "weight",
    )

    def __init__(
        self,
        user_id: str | None = None,
        group_id: str | None = None,
        context: dict[str, object] = _NOTHING,
        properties: dict[str, object] = _NOTHING,
        *,
        suppressed: bool = False,
    ) -> None:
        self.user_id = user_id
        self.group_id = group_id
        self.context = context
        self.properties = properties
        self.suppressed = self.muted = suppressed
        self.ready = user_id is not None and group_id is not None and not suppressed
        self.closed = False
        self.owner: ScopeBlock | None = None
        self.outer: Scope | None = None
        self.origin: Scope | None = None
        self.unbound: Scope | None = None
        self.filled: tuple[object, Scope] | None = None
        self.token: Token[Scope] | None = None
        self.encoded: Actor | None = None
        self.size = 0
        self.weight: MeteredDict | None = None

    def derive(
        self,
        user_id: object = None,
        group_id: object = None,
        context: Mapping[str, object] = _NOTHING,
        properties: Mapping[str, object] = _NOTHING,
    ) -> Scope:
        """Return a scope with these values over this one's.

        An id that is given but is none, such as an empty text, means nobody: never whoever acts around it.
        """
        size, context_of_all, properties_of_all = self.size, self.context, self.properties
        if context:
            own = snapshot(context)
            size += own.size if isinstance(own, MeteredDict) else 0
            context_of_all = {**context_of_all, **own}
        if properties:
            own = snapshot(properties)
            size += own.size if isinstance(own, MeteredDict) else 0
            properties_of_all = {**properties_of_all, **own}
        scope = Scope(
            self.user_id if user_id is None else as_id(user_id),
            self.group_id if group_id is None else as_id(group_id),
            context_of_all,
            properties_of_all,
            suppressed=self.suppressed,
        )
        scope.size = size
        return scope

    def weigh(self) -> None:
        """Count what is long in it against the buffer's bytes, for as long as events that wait refer to it.

        Not before its block has ended: what requests in progress hold is theirs, and no reason to refuse events.
        """
        if self.size:
            self.weight = MeteredDict({}, self.size)

    def close(self) -> None:
        """End the scope for those who still hold it: they go on with the one around it."""
        self.closed, self.ready, self.muted, self.token = True, False, False, None

    def resolve(self) -> Scope:
        """Return what a capture is to use: the nearest open scope, with the ids that it lacks from baggage."""
        scope = nearest_open(self)
        if scope.suppressed or (scope.user_id and scope.group_id):
            return scope
        return baggage.fill(scope)


def nearest_open(scope: Scope) -> Scope:
    """Return `scope`, or the nearest one around it whose block has not ended."""
    while (scope.origin or scope).closed and scope.outer is not None:
        scope = scope.outer
    return scope


def as_id(value: object) -> str | None:
    """Return an id as the text that the contract asks for; None for what is no id. Never raises.

    Texts, numbers, UUIDs and whatever else says what it is; not what only says where it lies in memory, and no bytes.
    """
    try:
        if isinstance(value, str):
            text = str.__str__(value)
        elif isinstance(value, (bool, bytes, bytearray, type(None))) or _is_nameless(type(value)):
            return None
        else:
            text = str(value)
        return text.strip() or None
    except Exception:
        return None


def _is_nameless(kind: type) -> bool:
    own: Any = object
    return kind.__str__ is own.__str__ and kind.__repr__ is own.__repr__


_current: ContextVar[Scope] = ContextVar("ts_autotrack_scope", default=Scope())
current = _current.get
set_current = _current.set


def replace(scope: Scope, bound: Scope) -> None:
    """Make `bound` current in the place of `scope`, for as long as that would have been."""
    bound.weigh()  # nobody tells when it ends
    bound.owner, bound.outer = scope.owner, scope.outer
    if scope.owner is not None:
        bound.origin = scope.origin or scope
    set_current(bound)


def restore(token: Token[Scope] | None) -> bool:
    """Undo the `set` that gave `token`; return False if that happened in another context."""
    try:
        if token is not None:
            _current.reset(token)
    except ValueError:
        return False
    return True
