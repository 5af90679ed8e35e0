"""Scope: the acting user, the account and the context of a stretch of work.

A current scope never changes, so a reference to a scope is a snapshot of the identity at the time of the call.
"""

from __future__ import annotations

from contextvars import ContextVar
from os import getpid
from weakref import ref

from ts_autotrack._core.contract import CONTEXT_FIELDS
from ts_autotrack._core.counters import SharedValue
from ts_autotrack._core.identity import baggage
from ts_autotrack._core.identity.ids import as_id
from ts_autotrack._core.process_id import process_id
from ts_autotrack._core.snapshot import UNCOUNTED_BYTES, copied, size_of

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from typing import Any

    from ts_autotrack.typing import IdentitySource

MAX_BOUND = 64
"""Scopes of `bind_user` with the fast path of captures, inside one entered block."""

LONG = 128
"""Bytes from which the memory budget counts a value of a large scope by itself."""

_NOTHING: dict[str, object] = {}
_NONE_LONG: dict[int, SharedValue] = {}


class Scope:
    """Identity, context and properties of a stretch of work.

    Attributes:
        user_id: The acting user; None if unknown.
        group_id: The user's account; None if unknown.
        context: Values for the `context` of every event.
        properties: Values for the `properties` of every event.
        suppressed: True if events are dropped.
        ready: True if a capture may use this scope without `resolve()`: both ids known, not suppressed, block not
            closed, nothing to count against the memory budget.
        drop_suppressed: True if suppressed and the block is not closed; lets wrappers drop the event without
            `resolve()`.
        entry: The entered block around this scope; None outside of every block.
        source: The function that named the user; None if nobody is known.
        unbound: The scope before `bind_user`; None if `bind_user` did not make this scope.
        with_baggage: A reference to the last OpenTelemetry context, the settings of baggage, and the scope made from
            the context's baggage; None in place of the scope if the baggage has no id to add.
        size: Bytes of all values, at most; in a large scope, the bytes of the short values.
        long: The long values of a large scope, by the id of the value; each waiting event counts them.
    """

    __slots__ = (
        "_encoded",
        "context",
        "drop_suppressed",
        "entry",
        "group_id",
        "long",
        "properties",
        "ready",
        "size",
        "source",
        "suppressed",
        "unbound",
        "user_id",
        "with_baggage",
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
        self.suppressed = self.drop_suppressed = suppressed
        self.ready = user_id is not None and group_id is not None and not suppressed
        self.entry: BlockEntry | None = None
        self.source: IdentitySource | None = None
        self.unbound: Scope | None = None
        self.with_baggage: tuple[ref[Any], object, Scope | None] | None = None
        self.size = 0
        self.long = _NONE_LONG
        # The encoder's cache. It lives as long as the scope: a dict in the encoder either kept scopes of ended requests
        # alive, or encoded the scopes of 10,000 concurrent tasks once for each event, at 1.6 times the cost.
        self._encoded: Any = None

    def derive(
        self,
        user_id: object = None,
        group_id: object = None,
        context: Mapping[str, object] = _NOTHING,
        properties: Mapping[str, object] = _NOTHING,
        source: IdentitySource = "user_context",
    ) -> Scope:
        """Return a scope with these values over the values of this scope.

        Another user starts anew: account and properties are not inherited, and of the context only the fields of the
        request. A given value that is no id, such as an empty text, means nobody.
        """
        _check_process()
        if user_id is None:
            base, user, source_of_all = self, self.user_id, self.source
        else:
            user = as_id(user_id)
            base = self if self.user_id in (None, user) else self.of_request()
            source_of_all = source if user else None
        size, context_of_all, properties_of_all = base.size, base.context, base.properties
        if context:
            own, length = copied(context)
            size += length
            context_of_all = {**context_of_all, **own} if context_of_all else own
        if properties:
            own, length = copied(properties)
            size += length
            properties_of_all = {**properties_of_all, **own} if properties_of_all else own
        if user_id is not None and user:
            size += len(user)
        if group_id is None:
            group = base.group_id
        elif group := as_id(group_id, "group_id"):
            size += len(group)
        scope = Scope(user, group, context_of_all, properties_of_all, suppressed=self.suppressed)
        scope.source = source_of_all
        scope.size = size
        if size > UNCOUNTED_BYTES or base.long:
            scope.measure(base.long)
        return scope

    def of_request(self) -> Scope:
        """Return a scope with those values of this scope that are the same for each user: fields of the request."""
        context, size = copied({key: self.context[key] for key in CONTEXT_FIELDS if key in self.context})
        scope = Scope(None, None, context, suppressed=self.suppressed)
        scope.size = size
        if size > UNCOUNTED_BYTES:
            scope.measure(self.long)
        return scope

    def known(self) -> Scope:
        """Return the scope that names the acting user, as far as the user is known."""
        return self

    def suppress(self) -> Scope:
        """Return this scope with its events dropped."""
        return Scope(self.user_id, self.group_id, self.context, self.properties, suppressed=True)

    def measure(self, known: dict[int, SharedValue]) -> None:
        """Find the values that waiting events have to count; a value that the outer scope knows is shared with it."""
        size = sum(map(len, self.context)) + sum(map(len, self.properties))
        long: dict[int, SharedValue] = {}
        for value in (self.user_id, self.group_id, *self.context.values(), *self.properties.values()):
            length = size_of(value)
            if length <= LONG:
                size += length
            else:
                long[id(value)] = known.get(id(value)) or SharedValue(length)
        self.size = size
        if size > UNCOUNTED_BYTES:
            long[_SHORT_VALUES] = SharedValue(size)
        if long:
            self.long = long
            self.ready = False

    def require_resolve(self) -> None:
        """Make every capture call `resolve()`."""
        self.ready = self.drop_suppressed = False

    def resolve(self) -> Scope:
        """Return the scope for a capture: the nearest open scope, with absent ids filled from baggage."""
        scope = nearest_open(self)
        if scope is not self:
            return scope.resolve()
        if scope.suppressed or (scope.user_id and scope.group_id):
            return scope
        return scope.filled() if baggage.counts_outside_of_requests() else scope

    def filled(self, distrusted: baggage.Distrusted | None = None) -> Scope:
        """Return this scope with absent ids from baggage.

        Args:
            distrusted: The baggage that a request brought along.
        """
        context = baggage.current_context()
        if context is None:
            return self
        memo, settings = self.with_baggage, baggage.in_force
        if memo is None or memo[0]() is not context or memo[1] is not settings:
            filled = self._fill(*baggage.read_ids(context, distrusted))
            memo = self.with_baggage = ref(context), settings, filled
        return memo[2] or self

    def _fill(self, user_id: str | None, group_id: str | None) -> Scope | None:
        """Return a scope with these ids in place of absent ids; None if the scope would be the same."""
        if self.user_id:
            if user_id not in (None, self.user_id):
                return None  # the account belongs to another user
            user_id = None
        if self.group_id:
            group_id = None
        if user_id is None and group_id is None:
            return None
        baggage.announce()
        return self.derive(user_id, group_id, {"identity_source": "baggage"}, source="baggage")


_SHORT_VALUES = 0
"""Key of the sum of the short values in `Scope.long`; no id of an object."""


class BlockEntry:
    """One entering of a block.

    The scopes inside the block refer to the entry, and a waiting event refers to its scope. The end of the block
    therefore clears the references of the entry: the Token, for example, holds a whole contextvars context.

    Attributes:
        block: The entered block; None once the entering context has left the block.
        outer: The scope around the block; None once the entering context has left the block.
        scope: The scope made by the block; None after the end of the block.
        bound: The last scopes made by `bind_user` inside the block.
        token: Token of the contextvar, valid in the entering context.
        closed: True if the block ended in another context, or before an inner block. Other work with a scope of
            the block goes on with `outer`.
        propagate: True if outgoing baggage carries the ids, False if not; None if neither this block nor a block around
            it says so.
    """

    __slots__ = ("block", "bound", "closed", "outer", "propagate", "scope", "token")

    def __init__(self, block: object, scope: Scope, outer: Scope, propagate: bool | None) -> None:  # noqa: FBT001 - built for each block
        self.block: object = block
        self.scope: Scope | None = scope
        self.outer: Scope | None = outer
        self.bound: list[Scope] | None = None
        self.token: Token[Scope] | None = None
        self.closed = False
        self.propagate = propagate

    def bind(self, scope: Scope) -> None:
        """Take a scope made by `bind_user` inside the block."""
        scope.entry = self
        if self.scope is None:
            return  # the block has ended; this work goes on
        bound = self.bound
        if bound is None:
            bound = self.bound = []
        bound.append(scope)
        if len(bound) > MAX_BOUND:  # a block around a whole server, in which every request binds its user
            bound.pop(0).require_resolve()

    def detach(self) -> None:
        """End the block in the entering context; work begun inside goes on with the scope.

        Such work may enter a block and begin more work in that block, and so on: each scope would hold all scopes
        before it for good.
        """
        self.scope = self.outer = self.bound = self.token = self.block = None

    def close(self) -> None:
        """End the block for all work with a scope of the block."""
        self.closed = True
        for scope in (self.scope, *(self.bound or ())):
            if scope is not None:
                scope.require_resolve()
        self.scope = self.bound = self.token = None


def nearest_open(scope: Scope) -> Scope:
    """Return `scope`, or the nearest scope around it whose block is not closed."""
    entry = scope.entry
    while entry is not None and entry.closed and (outer := entry.outer) is not None:
        scope, entry = outer, outer.entry
    return scope


def _check_process() -> None:
    """Start over in a child of a fork that Python's hooks did not see."""
    try:
        forked = getpid() != process_id.value
    except Exception:  # noqa: BLE001 - a sandbox, such as Temporal's, may forbid the call
        return
    if forked:
        process_id.on_change()


root = Scope()
"""The scope outside of every block: nobody acts."""
_current: ContextVar[Scope] = ContextVar("ts_autotrack_scope", default=root)
current = _current.get
set_current = _current.set


def replace(scope: Scope, bound: Scope) -> None:
    """Make `bound` current in place of `scope`, until the end of the block around `scope`."""
    if scope.entry is not None:
        scope.entry.bind(bound)
    set_current(bound)


def restore(token: Token[Scope] | None) -> bool:
    """Undo the `set_current` of `token`; return False if `token` is from another context."""
    try:
        if token is not None:
            _current.reset(token)
    except ValueError:
        return False
    return True
