"""gRPC servers, with threads and with asyncio: a request scope around each RPC.

Example:
    ::

        server = grpc.server(pool, interceptors=[TrackingInterceptor(user=user_of_token)])
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from ts_autotrack.integrations._features import feature_uses
from ts_autotrack.integrations._grpc_call import Call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ts_autotrack.typing import Identity

_opened: ContextVar[bool] = ContextVar("ts_autotrack_grpc", default=False)
"""True while an outer interceptor of this module asks the interceptors after itself for the method handler."""


class _Interceptor:
    """Parts of both interceptors: options, and the method handler around the application's."""

    def __init__(
        self,
        user: Callable[[Any], Identity | Awaitable[Identity]] | None = None,
        features: Mapping[str, str] | None = None,
        *,
        trust_baggage: bool = False,
    ) -> None:
        if user is not None and not callable(user):
            message = f"user={user!r}: expected a callable that takes the ServicerContext"
            raise TypeError(message)
        self._user = user
        self._uses = feature_uses(features, "method")
        self._asks = inspect.iscoroutinefunction(user) or inspect.iscoroutinefunction(getattr(user, "__call__", None))  # noqa: B004 - not whether, but which
        self._trust_baggage = trust_baggage
        for key in self._uses:
            if not key.startswith("/"):
                message = f'features={{{key!r}: ...}}: a key must be a full name, such as "/reports.Reports/Export"'
                raise ValueError(message)

    def _begin(self, details: grpc.HandlerCallDetails) -> Call:
        headers = None if self._trust_baggage else details.invocation_metadata or ()
        loop = asyncio.get_running_loop() if self._asks else None
        return Call(self._user, headers, self._uses.get(details.method), loop)


class TrackingInterceptor(_Interceptor, grpc.ServerInterceptor):  # type: ignore[misc]  # gRPC has no types
    """Give each RPC of a `grpc.server` an identity of its own.

    The RPC is one request: the interceptors after this one, the servicer's method, and each step of a response stream.
    Interceptors before this one are outside. `bind_user` anywhere inside names the user of the whole RPC. A second
    TrackingInterceptor of a server does nothing.

    Args:
        user: Callable that takes the ServicerContext and returns who acts: a user id, `(user_id, group_id)`, a mapping
            of the arguments of `user_context`, or None if nobody is known yet. The first event in the method asks.
        features: Names of features by full method name: `{"/reports.Reports/Export": "report_export"}`. The event is
            sent when the method ends with status OK, before the answer leaves. A response stream that the client closes
            early is a use of the feature after its first answer.
        trust_baggage: True to accept ids in OpenTelemetry baggage of the call's metadata. Any client can send these.

    Raises:
        TypeError: `user` is not callable, or is a coroutine function.
        ValueError: A key or a name in `features` is not valid.

    Example:
        >>> import grpc
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from ts_autotrack.integrations.grpc import TrackingInterceptor
        >>> def user_of_token(context):
        ...     return dict(context.invocation_metadata()).get("x-user")
        >>> server = grpc.server(ThreadPoolExecutor(), interceptors=[TrackingInterceptor(user=user_of_token)])
    """

    def __init__(
        self,
        user: Callable[[grpc.ServicerContext], Identity] | None = None,
        features: Mapping[str, str] | None = None,
        *,
        trust_baggage: bool = False,
    ) -> None:
        super().__init__(user, features, trust_baggage=trust_baggage)
        if self._asks:
            message = "user= must be a plain function: a gRPC server with threads cannot await a coroutine"
            raise TypeError(message)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method handler of one RPC."""
        if _opened.get():
            return continuation(handler_call_details)
        call = self._begin(handler_call_details)
        token = _opened.set(True)
        try:
            with call.request:
                handler = continuation(handler_call_details)
        finally:
            _opened.reset(token)
        return call.handler(handler, handler_call_details.method)


class AioTrackingInterceptor(_Interceptor, grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Give each RPC of a `grpc.aio.server` an identity of its own; see `TrackingInterceptor`.

    Args:
        user: Callable that takes the ServicerContext and returns who acts; sync or async.
        features: Names of features by full method name.
        trust_baggage: True to accept ids in OpenTelemetry baggage of the call's metadata.

    Raises:
        TypeError: `user` is not callable.
        ValueError: A key or a name in `features` is not valid.

    Example:
        ::

            server = grpc.aio.server(interceptors=[AioTrackingInterceptor(user=user_of_token)])
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method handler of one RPC."""
        if _opened.get():
            return await continuation(handler_call_details)
        call = self._begin(handler_call_details)
        token = _opened.set(True)
        try:
            with call.request:
                handler = await continuation(handler_call_details)
        finally:
            _opened.reset(token)
        return call.handler(handler, handler_call_details.method)
