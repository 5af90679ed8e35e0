"""The acting user, for code that sends the user elsewhere, and for threads."""

from __future__ import annotations

from ts_autotrack._core.callables import kind_of
from ts_autotrack._core.identity.blocks import Block
from ts_autotrack._core.identity.inside import wrap_inside
from ts_autotrack._core.identity.request_view import RequestView
from ts_autotrack._core.identity.scope import current, nearest_open

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import CurrentUser

    F = TypeVar("F", bound=Callable[..., Any])


def current_user() -> CurrentUser:
    """Return the acting user: an event tracked here and now would be credited to this user.

    Inside a request scope the resolver is asked, unless the user is known already.

    Returns:
        The user, the account, context and properties, and how the user became known. The ids are None if nobody is
        known.

    Example:
        >>> from ts_autotrack import current_user, user_context
        >>> with user_context("user_123"):
        ...     current_user().user_id
        'user_123'
    """
    from ts_autotrack.typing import CurrentUser

    resolved = current().resolve()
    scope, suppressed = resolved.known(), resolved.suppressed
    return CurrentUser(scope.user_id, scope.group_id, {**scope.context}, {**scope.properties}, scope.source, suppressed)


def propagate_context(function: F, /) -> F:
    """Return a callable that calls `function` for the user acting now: in a thread, an executor, a callback.

    Threads and executors start with nobody. asyncio's tasks and `asyncio.to_thread` need no help: they copy the
    context. Inside a request scope the callable belongs to the request, also after its end.

    Args:
        function: Any callable; the returned callable is of the same kind, with the same signature.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from ts_autotrack import propagate_context, track, user_context
        >>> with ThreadPoolExecutor() as pool, user_context("user_123"):
        ...     _ = pool.submit(propagate_context(track), "report_ready")
    """
    scope = nearest_open(current())
    propagate = scope.entry.propagate if scope.entry is not None else None
    if not isinstance(scope, RequestView):  # whose resolver is asked by the first event
        scope = scope.resolve()
    # Not by `decorate`, which changes tasks and commands of other libraries in place.
    carried: Any = wrap_inside(_Propagated(scope, propagate), function, kind_of(function))
    return carried  # type: ignore[no-any-return]


class _Propagated(Block):
    """A block with the scope of another place."""

    __slots__ = ("_scope", "propagate")

    def __init__(self, scope: Scope, propagate: bool | None) -> None:  # noqa: FBT001 - as the blocks hold it
        super().__init__()
        self._scope = scope
        self.propagate = propagate

    def inner(self, outer: Scope) -> Scope:
        """Return a scope with the values of the other place."""
        del outer
        return self._scope.derive()
