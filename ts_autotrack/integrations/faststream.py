"""FastStream 0.6 and newer: each message belongs to the user acting when it was published.

Example:
    ::

        broker = RedisBroker("redis://localhost", middlewares=[TrackingMiddleware()])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faststream import BaseMiddleware

from ts_autotrack.integrations._messages import HEADER, Carrier, MessageScope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from faststream import ContextRepo, PublishCommand, StreamMessage


class TrackingMiddleware:
    """Broker middleware: sends the acting user along in a header, and opens a block around each message.

    A message starts with the user of its publisher, in any process; `bind_user` inside holds until its end. Messages
    that a handler publishes, or returns for `@broker.publisher`, get the user acting at that moment. A batch is
    published for one user. A consumed batch has a user if all its messages have the same user.

    Headers count as the broker itself does: whoever may publish there can name any user. For a broker that takes
    messages of other companies, or of browsers and devices, use `trust_headers=False`.

    Args:
        properties: Names of properties, or of fields of the context such as `session_id`, that go along. All others
            stay in the publishing process.
        trust_headers: False to start each message with nobody; `bind_user` in the handler names the user.

    Raises:
        TypeError: `properties` is one text instead of several.
        ValueError: A name in `properties` is a key of the header.
    """

    def __init__(self, *, properties: Iterable[str] = (), trust_headers: bool = True) -> None:
        self._carrier = Carrier(properties)
        self._trust_headers = trust_headers

    def __call__(self, msg: Any, /, *, context: ContextRepo) -> BaseMiddleware[Any, Any]:
        """Return the middleware of one message."""
        return _MessageMiddleware(msg, context, self._carrier, trust_headers=self._trust_headers)


class _MessageMiddleware(BaseMiddleware[Any, Any]):
    def __init__(self, msg: Any, context: ContextRepo, carrier: Carrier, *, trust_headers: bool) -> None:
        super().__init__(msg, context=context)
        self._carrier = carrier
        self._trust_headers = trust_headers
        self._reply: str | None = None  # header of messages that the handler returns: they leave after the block

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        """Run the handler inside the block of its message."""
        with MessageScope(_header_of(msg) if self._trust_headers else None):
            result = await call_next(msg)
            self._reply = self._carrier.header()
            return result

    async def publish_scope(self, call_next: Callable[[Any], Awaitable[Any]], cmd: PublishCommand) -> Any:
        """Write the acting user into a message; a header of the application's own gives way."""
        header = self._carrier.header() if self.msg is None else self._reply
        if header is not None:
            cmd.headers = {**cmd.headers, HEADER: header}
        elif HEADER in cmd.headers:
            cmd.headers = {name: value for name, value in cmd.headers.items() if name != HEADER}
        return await call_next(cmd)


def _header_of(msg: StreamMessage[Any]) -> object:
    """Return the header of a message; of a batch, the header that all its messages have."""
    header = msg.headers.get(HEADER)
    return header if all(headers.get(HEADER) == header for headers in msg.batch_headers) else None
