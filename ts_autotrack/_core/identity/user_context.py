"""The public functions of identity: user_context, bind_user, clear_user, suppress."""

from __future__ import annotations

import sys

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.identity.arguments import identity_values
from ts_autotrack._core.identity.blocks import ScopeBlock
from ts_autotrack._core.identity.request_view import RequestView
from ts_autotrack._core.identity.scope import Scope, current, nearest_open, replace
from ts_autotrack._core.identity.servers import warn_of_reused_thread

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any


class user_context(ScopeBlock):  # noqa: N801 - used like a function, as contextlib's are
    """Set the acting user for the events inside a block or a decorated function.

    Blocks nest: an inner block inherits the values that it does not set. A block that names another user than the user
    around it starts anew: it inherits neither account nor properties, but `device_type`, `location`, `referrer`,
    `session_id` and `device_id`, which belong to the request. The identity follows `await`. asyncio tasks inherit the
    block they were started in; other tasks and new threads do not: see `propagate_context`.

    Args:
        user_id: Stable id of the acting user, as in your database: a text, an integer, a UUID, or another type with a
            text form of its own. Anything else, such as a whole record or a function, is refused with a warning, and
            the events inside have no user.
        group_id: Id of the user's account. The vendor needs it for account-level analytics. `account_id`, `tenant_id`,
            `org_id` and `organization_id` mean the same.
        device_type: Sent as `context.device_type`, such as `"mobile"`.
        location: Sent as `context.location`, such as `"New York, USA"`.
        referrer: Sent as `context.referrer`.
        session_id: Sent as `context.session_id`.
        device_id: Sent as `context.device_id`.
        context: Further keys of the event's `context`.
        propagate: True to put the ids of the user acting inside, and nothing else, into the OpenTelemetry baggage of
            requests sent inside: the next service can credit the same user. All requests that OpenTelemetry instruments
            carry the ids then, those to third parties included. False turns that off inside; None does as around.
        **properties: Sent in `properties` of every event inside, such as `user_email` or `subscription_type`.

    Example:
        >>> from ts_autotrack import track_feature, user_context
        >>> @track_feature("analytics_dashboard")
        ... def open_dashboard():
        ...     return "ok"
        >>> with user_context("user_123", group_id="account_456", device_type="mobile"):
        ...     open_dashboard()
        'ok'
        >>> with user_context("admin_1", group_id="staff", team="support"):
        ...     with user_context("user_123", group_id="account_456"):  # impersonation: nothing of admin_1 is sent
        ...         open_dashboard()
        'ok'
    """

    __slots__ = ("propagate", "values")

    def __init__(  # noqa: PLR0913 - the vendor's fields
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
        propagate: bool | None = None,
        **properties: object,
    ) -> None:
        super().__init__()
        self.propagate = propagate
        fields = (device_type, location, referrer, session_id, device_id)
        self.values = identity_values(user_id, group_id, context, fields, properties)

    def inner(self, outer: Scope) -> Scope:
        """Return the outer scope with the values of this block over its own."""
        return outer.derive(*self.values)

    def __reduce__(self) -> Any:
        return _user_context, (*self.values, self.propagate)


def _user_context(
    user_id: object,
    group_id: object,
    context: dict[str, object],
    properties: dict[str, object],
    propagate: bool | None = None,  # noqa: FBT001 - the arguments of a pickle
) -> user_context:
    """Rebuild a user_context from a pickle."""
    return user_context(user_id, group_id=group_id, context=context, propagate=propagate, **properties)


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


def _ignore(frame: FrameType, scope: Scope) -> None:
    """Stand in for the hook that notes bindings."""


on_bind: Callable[[FrameType, Scope], None] = _ignore
"""Called with the frame that binds or clears a user, and the new scope. Capture sets this hook."""


def bind_user(user_id: object = None, **values: Any) -> None:
    """Set the acting user for the rest of the current context: in a login view, a middleware, a message handler.

    Inside a request scope, which the integrations of web frameworks open, the binding holds for the whole request,
    wherever it is made: in a dependency, a thread of a pool, a child task. Elsewhere it ends with the enclosing
    `user_context` block, or with the task or thread: a server of your own that handles several requests on one thread
    needs a `request_scope` around each request.

    Binding a user replaces earlier bindings; binding only a group or properties adds to earlier bindings.

    Args:
        user_id: Stable id of the acting user. None adds to the earlier bindings.
        **values: The other arguments of `user_context`, but `propagate`, which belongs to a block.

    Example:
        >>> from ts_autotrack import bind_user, clear_user
        >>> bind_user("user_123", group_id="account_456")
        >>> clear_user()
    """
    scope, named = nearest_open(current()), user_context(user_id, **values)
    given = named.values
    if named.propagate is not None:
        warn_once("bind_user", _NO_BLOCK)
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.currentframe takes no depth
    if isinstance(scope, RequestView):
        scope.actor.bind(*given)
        on_bind(frame, scope)
        return
    if scope.entry is None or scope.entry.block is None:
        warn_of_reused_thread(frame)
    outer = scope if user_id is None else scope.unbound or scope
    bound = outer.derive(*given, source="bind_user")
    bound.unbound = scope.unbound or scope
    replace(scope, bound)
    on_bind(frame, bound)


def clear_user() -> None:
    """Forget user, group, context and properties for the rest of the current context; `suppress` stays in force.

    Inside a request scope the user is forgotten for the whole request. Elsewhere the values of enclosing blocks are
    forgotten, too: later events inside these blocks have no user.

    Example:
        >>> from ts_autotrack import bind_user, clear_user
        >>> bind_user("user_123")
        >>> clear_user()
    """
    scope = nearest_open(current())
    if isinstance(scope, RequestView):
        scope.actor.clear()
    else:
        scope = Scope(suppressed=scope.suppressed)
        replace(nearest_open(current()), scope)
    on_bind(sys._getframe(1), scope)  # noqa: SLF001 - likewise


_NO_BLOCK = (
    "bind_user(propagate=...) has no effect: give `propagate` to a `with user_context(...)` block, or set "
    "TS_AUTOTRACK_PROPAGATE_BAGGAGE=1 for the whole process."
)
