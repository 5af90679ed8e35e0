"""One RPC of a gRPC server: the application's method inside a request."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from ts_autotrack import request_scope
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""Attribute of a method handler, and its constructor, by "is the request a stream, is the response a stream"."""

_LEFT_ALONE = (
    "the gRPC method %s uses an experimental attribute of gRPC and is not tracked: open a request_scope() in the method"
)


_OK = (None, 0, grpc.StatusCode.OK)
"""Codes of an RPC that ends well; in grpc.aio a code may be a number, and 0 before any is set."""


class Call:
    """One RPC: its request, and the application's method inside the request.

    The request also ends if gRPC never calls the method, or drops a response stream: with the last reference.

    Args:
        user: The resolver, or None.
        headers: The call's metadata, if its baggage is not trusted.
        use: Records the feature of the method.
        loop: The event loop that awaits an async resolver.
    """

    __slots__ = ("_behavior", "_ended", "_loop", "_seen", "_use", "request")

    def __init__(
        self,
        user: Callable[[Any], Any] | None,
        headers: Any,
        use: Callable[[], None] | None,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self._ended = False
        self._loop = loop
        self._seen: list[Any] = []  # the ServicerContext, once there is one; the resolver must not refer to the call
        self._use = use
        self._behavior: Callable[[Any, Any], Any] = _no_behavior
        self.request = request_scope(user and partial(_ask, user, self._seen), headers=headers).begin()

    def __del__(self) -> None:
        if not self._ended:
            self.request.end()

    def _end(self) -> None:
        """End the request after a method that is no coroutine function."""
        self._ended = True
        if self._loop is None:
            self.request.end()
            return
        end = self.request.aend()
        try:  # without waiting: the loop may be waiting for this thread, at the end of a pool
            asyncio.run_coroutine_threadsafe(end, self._loop)
        except RuntimeError:  # the loop is closed
            end.close()
            self.request.end()

    def handler(self, handler: grpc.RpcMethodHandler | None, method: str) -> grpc.RpcMethodHandler | None:
        """Return a method handler that runs the method inside the request."""
        if handler is None:
            return None
        kind, constructor = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        behavior = self._behavior = getattr(handler, kind)
        if hasattr(behavior, "experimental_non_blocking") or hasattr(behavior, "experimental_thread_pool"):
            warn_once(_LEFT_ALONE, method)
            return handler
        if inspect.isasyncgenfunction(behavior):
            wrapped: Callable[[Any, Any], Any] = self.aio_stream
        elif inspect.iscoroutinefunction(behavior):
            wrapped = self.aio_answer
        else:
            wrapped = self.stream if handler.response_streaming else self.answer
        return constructor(wrapped, handler.request_deserializer, handler.response_serializer)

    def answer(self, request: Any, context: Any) -> Any:
        """Run a method with one answer."""
        self._seen.append(context)
        context = self._noting_status(context)
        try:
            with self.request:
                answer = self._behavior(request, context)
                self._succeed(context)
                return answer
        finally:
            self._end()

    def stream(self, request: Any, context: Any) -> Iterator[Any]:
        """Run a method that returns an iterator of answers."""
        self._seen.append(context)
        context = self._noting_status(context)
        with self.request:
            steps = iter(self._behavior(request, context))
        return self._steps(steps, context)

    def _steps(self, steps: Iterator[Any], context: Any) -> Iterator[Any]:
        answered = False
        try:
            while True:
                with self.request:
                    try:
                        answer = next(steps)
                    except StopIteration:
                        break
                yield answer
                answered = True
        except GeneratorExit:  # the client went away during an answer
            with self.request:
                getattr(steps, "close", _nothing)()
                self._succeed(context, answered=True)
            raise
        except grpc.RpcError:  # by the iterator of requests, to a method that waits for the next request
            if answered and not context.is_active():
                with self.request:
                    self._succeed(context, answered=True)
            raise
        else:
            with self.request:
                self._succeed(context, answered=answered)
        finally:
            self._end()

    async def aio_answer(self, request: Any, context: Any) -> Any:
        """Run a coroutine method; also one that writes a response stream by `context.write`."""
        self._seen.append(context)
        try:
            with self.request:
                answer = await self._behavior(request, context)
                self._succeed(context)
                return answer
        finally:
            await self.request.aend()

    async def aio_stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Run an asynchronous generator of answers."""
        self._seen.append(context)
        steps, answered = self._behavior(request, context), False
        try:
            while True:
                with self.request:
                    try:
                        answer = await anext(steps)
                    except StopAsyncIteration:
                        self._succeed(context)
                        break
                    await self.request.settle()  # a stream may go on for days
                answered = True
                yield answer
        except (GeneratorExit, asyncio.CancelledError):  # the client went away
            with self.request:
                await steps.aclose()
                if answered:
                    self._succeed(context, answered=True)
            raise
        finally:
            await self.request.aend()

    def _noting_status(self, context: Any) -> Any:
        """Return the context for a method that is no coroutine function; for grpc.aio one that notes the status."""
        return context if self._use is None or hasattr(context, "code") else _NotingContext(context)

    def _succeed(self, context: Any, *, answered: bool = False) -> None:
        """Record the feature of the method if the status is OK."""
        if self._use is not None and _is_ok(context, answered=answered):
            self._use()


class _NotingContext:
    """Context of a method that is no coroutine function under grpc.aio: notes the status, which gRPC does not tell.

    There `abort` raises in recent versions of grpcio only; in 1.71 it returns, and the method goes on.
    """

    __slots__ = ("_aborted", "_code", "_context")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._aborted = False
        self._code: object = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def abort(self, code: Any, *details: Any, **others: Any) -> Any:
        """End the RPC with an error."""
        self._aborted = True
        return self._context.abort(code, *details, **others)

    def set_code(self, code: Any) -> None:
        """Set the status of the RPC."""
        self._code = code
        self._context.set_code(code)

    @property
    def ends_well(self) -> bool:
        """True unless the method has aborted, or has set the code of an error."""
        return not self._aborted and self._code in _OK


def _ask(user: Callable[[Any], Any], seen: list[Any]) -> Any:
    """Return the answer of `user`; None before the method begins."""
    return user(seen[0]) if seen else None


def _is_ok(context: Any, *, answered: bool) -> bool:
    """Return True if the RPC ends with status OK; cancelled RPCs only count if the client has an answer."""
    if isinstance(context, _NotingContext):
        return context.ends_well
    try:
        if hasattr(context, "is_active"):
            return context.code() in _OK and (answered or context.is_active())
        if hasattr(context, "done"):  # grpc.aio
            return context.code() in _OK and (answered or not context.done())
    except (AttributeError, NotImplementedError):  # optional in a context of a test
        pass
    return True


def _no_behavior(*_: object) -> None: ...


def _nothing() -> None: ...
