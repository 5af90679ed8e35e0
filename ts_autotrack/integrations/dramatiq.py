"""Dramatiq 1.17 and newer: each message belongs to the user acting when it was sent.

Example:
    ::

        broker = RedisBroker()
        broker.add_middleware(TrackingMiddleware(), before=dramatiq.middleware.AgeLimit)  # the first of the list
        dramatiq.set_broker(broker)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq import Middleware
from dramatiq.middleware import Callbacks, GroupCallbacks, Pipelines, Retries

from ts_autotrack.integrations._features import feature_uses
from ts_autotrack.integrations._log import warn_once
from ts_autotrack.integrations._messages import HEADER, NOBODY, Carrier, begin_message, end_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dramatiq import Broker, Message, Worker
    from dramatiq.broker import MessageProxy

_SENDERS = (Callbacks, GroupCallbacks, Pipelines, Retries)
"""Middleware that sends further messages after a message."""
_ORDER = (
    "TrackingMiddleware stands after %s in the broker's middleware: messages that %s sends have no user. "
    "Add it as the first: add_middleware(TrackingMiddleware(), before=dramatiq.middleware.AgeLimit)."
)


class TrackingMiddleware(Middleware):
    """Broker middleware: sends the acting user along in `message.options`, and opens a block around each message.

    A message starts with the user of its sender, in any process; `bind_user` inside holds until its end. A retry keeps
    the user of the first attempt. The next message of a pipeline, and callbacks, get the user acting at the end of the
    message before.

    The middleware stands before all others in the broker's list: Dramatiq runs the functions after a message in
    reverse order, and `Pipelines`, `Callbacks` and `Retries` send their messages there.

    Args:
        features: Names of features by the name of an actor: `{"export_report": "report_export"}`. The event is sent
            after a message that raised nothing.
        properties: Names of properties, or of fields of the context such as `session_id`, that go along. All others
            stay in the sending process.

    Raises:
        TypeError: `properties` is one text instead of several.
        ValueError: A key or a name in `features`, or a name in `properties`, is not valid.
    """

    def __init__(self, *, features: Mapping[str, str] | None = None, properties: Iterable[str] = ()) -> None:
        self._uses = feature_uses(features, "actor")
        self._carrier = Carrier(properties)

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Warn about a place in the list where messages lose their user."""
        before = broker.middleware[: broker.middleware.index(self)]
        for name in [type(other).__name__ for other in before if isinstance(other, _SENDERS)][:1]:
            warn_once(_ORDER, name, name)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int) -> None:
        """Write the acting user into the message, unless the message has been here before: a retry, or a delay."""
        if type(message.options.get(HEADER, _ABSENT)) is _Written:
            header = self._carrier.header()
            if header is None:
                message.options.pop(HEADER, None)
            else:
                message.options[HEADER] = _Written(header)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Open the block of the message."""
        begin_message(message.options.setdefault(HEADER, NOBODY))

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        """Record the actor's feature after a success, and leave the block."""
        try:
            if exception is None and not message.failed and (use := self._uses.get(message.actor_name)):
                use()
        finally:
            end_message()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Leave the block, if another middleware did not skip the message before."""
        end_message()


class _Written(str):
    """Header written by this process. A message that is sent again, as a template, gets the user of that moment.

    Encoders see a plain text; so a worker needs nothing of this module.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


_ABSENT = _Written()
