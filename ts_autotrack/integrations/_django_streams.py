"""Streaming responses of Django: the middleware has returned, and each part is still made inside the request."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ts_autotrack.integrations._django_user import RequestUser

_END: Any = object()
"""Stands for the part after the last part of a stream."""


def follow_stream(response: Any, opened: Any, user: RequestUser) -> bool:
    """Let a stream and its end run inside the request; return False for a response that is no stream, or a file."""
    if not getattr(response, "streaming", False) or getattr(response, "file_to_stream", None) is not None:
        return False
    content, close = response.streaming_content, response.close
    user.can_await = response.is_async
    response.streaming_content = (
        _AsyncParts(content, _closing_of(response), opened, user) if response.is_async else _parts(content, opened)
    )

    def close_inside() -> None:
        vars(response).pop("close", None)  # a cycle would leave the stream to the garbage collector
        if user.is_read:  # by a client that has left: Python closes the stream later, and the request with it
            close()
            return
        user.can_await = False
        with opened:
            try:
                close()
            finally:
                opened.end()

    response.close = close_inside
    return True


def _parts(content: Iterator[bytes], opened: Any) -> Iterator[bytes]:
    """Yield the parts of a stream; each is made inside the request."""
    part = None
    try:
        while part is not _END:
            with opened:
                part = next(content, _END)
            if part is not _END:
                yield part
    finally:
        opened.end()


class _AsyncParts:
    """Async stream of a response whose parts are made inside the request, and the end of the stream, too.

    Django keeps the iterator for as long as the response, and after a disconnect the response is garbage that waits for
    the collector. So each reading has a generator of its own, which Python closes soon after the client has left.
    """

    def __init__(self, content: AsyncIterator[bytes], close: Any, opened: Any, user: RequestUser) -> None:
        self._content = content
        self._close = close
        self._opened = opened
        self._user = user
        self._is_kept = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._is_kept:
            return self._read()
        self._is_kept = True  # Django asks for the iterator when it keeps this object, and again to read
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration  # pragma: no cover - makes this object an iterator for Django

    async def _read(self) -> AsyncIterator[bytes]:
        part, self._user.is_read = None, True
        try:
            while part is not _END:
                with self._opened:
                    part = await anext(self._content, _END)
                    await self._opened.settle()
                if part is not _END:
                    yield part
        finally:
            with self._opened:
                try:
                    if self._close is not None:
                        with suppress(RuntimeError):  # the loop ends, and closes all generators at the same time
                            await self._close()
                finally:
                    self._user.is_read = False
                    await self._opened.aend()


def _closing_of(response: Any) -> Any:
    """Return the method that ends an application's async generator; Django leaves this to the garbage collector."""
    return getattr(getattr(response, "_iterator", None), "aclose", None)
