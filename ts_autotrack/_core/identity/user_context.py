"""The public functions of identity: user_context, bind_user, clear_user, suppress."""

from __future__ import annotations

from ts_autotrack._core.identity.arguments import identity_values
from ts_autotrack._core.identity.blocks import ScopeBlock
from ts_autotrack._core.identity.request import RequestView
from ts_autotrack._core.identity.scope import Scope, current, nearest_open, replace

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class user_context(ScopeBlock):  # noqa: N801 - used like a function, as contextlib's are
    """Set the acting user for the events inside a block or a decorated function.

    Blocks nest: an inner block inherits the values that it does not set. The identity follows `await`. asyncio tasks
    inherit the block they were started in; other tasks and new threads do not.

    Args:
        user_id: Stable id of the acting user, as in your database. Other values than text are turned into text.
        group_id: Id of the user's account. The vendor needs it for account-level analytics.
        device_type: Sent as `context.device_type`, such as `"mobile"`.
        location: Sent as `context.location`, such as `"New York, USA"`.
        referrer: Sent as `context.referrer`.
        session_id: Sent as `context.session_id`.
        device_id: Sent as `context.device_id`.
        context: Further keys of the event's `context`.
        **properties: Sent in `properties` of every event inside, such as `user_email` or `subscription_type`.

    Example:
        >>> from ts_autotrack import track_feature, user_context
        >>> @track_feature("analytics_dashboard")
        ... def open_dashboard():
        ...     return "ok"
        >>> with user_context("user_123", group_id="account_456", device_type="mobile"):
        ...     open_dashboard()
        'ok'
    """

    __slots__ = ("values",)

    def __init__(
        self,
        user_id: object = None,
        *,
        group_id: object = None,
        device_type: object = None,
        location: object = None,
        referrer: object = None,
        session_id: object = None,
        device_id: object = None,
        context: Mapping[str, object] | None = None,
        **properties: object,
    ) -> None:
        super().__init__()
        fields = (device_type, location, referrer, session_id, device_id)
        self.values = identity_values(user_id, group_id, context, fields, properties)

    def inner(self, outer: Scope) -> Scope:
        """Return the outer scope with the values of this block over its own."""
        return outer.derive(*self.values)

    def __reduce__(self) -> Any:
        return _user_context, self.values


def _user_context(
    user_id: object, group_id: object, context: dict[str, object], properties: dict[str, object]
) -> user_context:
    """Rebuild a user_context from a pickle."""
    return user_context(user_id, group_id=group_id, context=context, **properties)


class suppress(ScopeBlock):  # noqa: N801 - used like a function
    """Drop the events inside a block or a decorated function: consent withheld, an admin impersonating a user.

    Suppressed events are counted in `stats().dropped["suppressed"]`.

    Example:
        >>> from ts_autotrack import suppress, track
        >>> with suppress():
        ...     track("invite_sent", user_id="user_123")
    """

    __slots__ = ()

    def inner(self, outer: Scope) -> Scope:
        """Return the outer scope, suppressed."""
        return outer.suppress()

    def __reduce__(self) -> Any:
        return suppress, ()


def bind_user(user_id: object = None, **values: Any) -> None:
    """Set the acting user for the rest of the current context: in a login view, a middleware, a message handler.

    Binding a user replaces earlier bindings; binding only a group or properties adds to earlier bindings. The binding
    ends with the enclosing `user_context` block. Without a block the binding ends with the task or thread: a server
    that handles several requests on one thread needs a block around each request, or `clear_user()`.

    Args:
        user_id: Stable id of the acting user. None adds to the earlier bindings.
        **values: The other arguments of `user_context`.

    Example:
        >>> from ts_autotrack import bind_user, clear_user
        >>> bind_user("user_123", group_id="account_456")
        >>> clear_user()
    """
    scope, given = nearest_open(current()), user_context(user_id, **values).values
    if isinstance(scope, RequestView):
        scope.actor.bind(*given)
        return
    outer = scope if user_id is None else scope.unbound or scope
    bound = outer.derive(*given, source="bind_user")
    bound.unbound = scope.unbound or scope
    replace(scope, bound)


def clear_user() -> None:
    """Forget user, group, context and properties for the rest of the current context; `suppress` stays in force.

    The values of enclosing blocks are forgotten, too: later events inside these blocks have no user.

    Example:
        >>> from ts_autotrack import bind_user, clear_user
        >>> bind_user("user_123")
        >>> clear_user()
    """
    scope = nearest_open(current())
    if isinstance(scope, RequestView):
        scope.actor.clear()
    else:
        replace(scope, Scope(suppressed=scope.suppressed))
