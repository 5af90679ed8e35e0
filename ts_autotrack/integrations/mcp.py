"""MCP servers: the official `mcp` package from version 2, and FastMCP (`fastmcp`) from version 3.

Each call of a tool is a request, and a use of the tool's feature. Neither package is imported before a server of it is
instrumented.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from ts_autotrack import request_scope
from ts_autotrack.integrations._features import cached_use, feature_names
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ts_autotrack.typing import Identity

    CallNext = Callable[[Any], Awaitable[Any]]

_CALL = "tools/call"
_UNKNOWN = (
    "instrument_mcp(%r): expected a FastMCP of the package fastmcp from version 3, or an MCPServer or Server of the "
    "package mcp from version 2. Version 1 of mcp has no public middleware: put @track_feature(interface='agent') "
    "below @mcp.tool() there"
)

_serving: ContextVar[bool] = ContextVar("ts_autotrack_mcp_call", default=False)
"""True inside a call of a tool: a tool that calls another one, or a mounted server, makes no second event."""


def instrument_mcp(
    server: Any,
    user: Callable[[Any], Identity | Awaitable[Identity]] | None = None,
    *,
    features: Mapping[str, str | None] | None = None,
) -> None:
    """Send an event for each successful call of a tool; a second call changes nothing.

    The feature's name is the tool's name, the event has `interface="agent"`. A call that raises, or whose result has
    `isError`, is no success, nor is a result that asks the client for input: the continued call counts. Arguments of
    tools are never sent. Each call is a request of its own: `bind_user` inside names the user of its events, and
    nothing is seen by other calls, also of the same session. Resources and prompts are no features.

    Add your own middlewares first: those added later see a call inside of this request.

    A tool that is decorated by `@track_feature` makes that event in addition: leave one of them out, for example by
    `features={"tool": None}`.

    Args:
        server: The server.
        user: Callable that takes the verified access token of the request, or None without one, as over stdio. It
            returns who acts: a user id, `(user_id, group_id)`, a mapping of the arguments of `user_context`, or None;
            it may be a coroutine function. Default: the token's subject (claim `sub`). A client id is not taken for
            a user: it names the agent's program.
        features: Other names of features by the name of the tool. None as a name leaves the tool out.

    Raises:
        TypeError: `server` is no such server, `user` is not callable, or `features` is no mapping.
        ValueError: A key or a name in `features` is no text, or is empty.

    Example:
        ::

            instrument_mcp(mcp)                                                      # HTTP, with a token verifier
            instrument_mcp(mcp, user=lambda token: environ.get("MYAPP_USER"))        # stdio
    """
    if user is not None and not callable(user):
        message = f"instrument_mcp(user={user!r}): expected a callable that takes the access token"
        raise TypeError(message)
    _instrument(server, _ToolCalls(user or subject_of, feature_names(features, "tool")))


def instrument_named(
    server: Any, user: Callable[[Any], Identity | Awaitable[Identity]] | None, features: Mapping[str, str | None]
) -> None:
    """Do the same for the tools in `features` only, unless `instrument_mcp` is called for the server."""
    _instrument(server, _ToolCalls(user or subject_of, feature_names(features, "tool"), automatic=True))


def _instrument(server: Any, calls: _ToolCalls) -> None:
    present = getattr(server, "middleware", None)
    if not isinstance(present, list) or isinstance(server, type):
        raise TypeError(_UNKNOWN % server)
    for middleware in present:
        if getattr(middleware, "is_ts_autotrack", False):
            if middleware.calls.automatic:
                middleware.calls = calls
            return
    if callable(getattr(server, "add_middleware", None)):
        server.add_middleware(_fastmcp_middleware()(calls))
    else:
        present.append(_Middleware(calls))


def uninstrument_mcp(server: Any) -> None:
    """Undo `instrument_mcp`. Calls in progress still make their events."""
    present = getattr(server, "middleware", None)
    if isinstance(present, list):
        present[:] = [middleware for middleware in present if not getattr(middleware, "is_ts_autotrack", False)]


def subject_of(token: Any) -> str | None:
    """Return the subject of a verified access token: the person for whom the agent acts. None without one."""
    claims = getattr(token, "claims", None) or {}
    return getattr(token, "subject", None) or claims.get("sub")


class _ToolCalls:
    """Calls of the tools of one server.

    Attributes:
        automatic: True if no code of the application has asked for them: a tool without a name is no feature.
    """

    def __init__(
        self,
        user: Callable[[Any], Identity | Awaitable[Identity]],
        names: Mapping[str, str | None],
        *,
        automatic: bool = False,
    ) -> None:
        self.automatic = automatic
        self._user = user
        self._names = names

    async def run(self, name: object, token: Callable[[], Any], call: Callable[[], Awaitable[Any]]) -> Any:
        """Run the call of a tool as a request, and record the use of the feature after a success."""
        if _serving.get():
            return await call()
        mark = _serving.set(True)
        try:
            async with request_scope(partial(self._identify, token)):
                result = await call()
                self._record(name, result)
                return result
        finally:
            _serving.reset(mark)

    def _identify(self, token: Callable[[], Any]) -> Any:
        return self._user(token())

    def _record(self, name: object, result: object) -> None:
        try:
            if isinstance(name, str) and _is_success(result):
                feature = self._names.get(name, None if self.automatic else name)
                if feature is not None:
                    cached_use(feature, name, "agent")()
        except Exception as error:  # noqa: BLE001 - the call goes on
            warn_once("the use of a tool could not be recorded (%s): its event is not sent", type(error).__name__)


def _is_success(result: Any) -> bool:
    """Return True for the result of a tool that neither failed nor asks the client for input."""
    if isinstance(result, dict):
        return not result.get("isError") and result.get("resultType", "complete") == "complete"
    if getattr(result, "result_type", "complete") != "complete" or hasattr(result, "input_required"):
        return False
    return result is not None and not getattr(result, "is_error", False)


class _Middleware:
    """Middleware of the package mcp."""

    is_ts_autotrack = True

    def __init__(self, calls: _ToolCalls) -> None:
        self.calls = calls

    async def __call__(self, ctx: Any, call_next: CallNext) -> Any:
        if ctx.method != _CALL:
            return await call_next(ctx)
        name = (ctx.params or {}).get("name")
        return await self.calls.run(name, partial(_token_of, ctx.request), partial(call_next, ctx))


def _token_of(request: Any) -> Any:
    """Return the verified access token of an HTTP request. A session's own context may hold an older one."""
    users: Any = sys.modules.get("mcp.server.auth.middleware.bearer_auth")
    user: Any = (getattr(request, "scope", None) or {}).get("user")
    return user.access_token if users is not None and isinstance(user, users.AuthenticatedUser) else None


@cache
def _fastmcp_middleware() -> Callable[[_ToolCalls], Any]:
    """Return the class of the middleware for fastmcp, which expects its own base class."""
    from fastmcp.server.dependencies import get_access_token
    from fastmcp.server.middleware import Middleware

    class TrackingMiddleware(Middleware):
        is_ts_autotrack = True

        def __init__(self, calls: _ToolCalls) -> None:
            self.calls = calls

        async def on_call_tool(self, context: Any, call_next: CallNext) -> Any:
            return await self.calls.run(context.message.name, get_access_token, partial(call_next, context))

    return TrackingMiddleware
