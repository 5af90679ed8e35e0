"""Taskiq: each task belongs to the user acting when it was sent.

Example:
    ::

        broker = ListQueueBroker("redis://localhost").with_middlewares(TrackingMiddleware())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taskiq import TaskiqMiddleware

from ts_autotrack.integrations._features import feature_uses
from ts_autotrack.integrations._messages import HEADER, NOBODY, Carrier, begin_message, end_message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from taskiq import AsyncBroker, TaskiqMessage, TaskiqResult


class TrackingMiddleware(TaskiqMiddleware):
    """Broker middleware: sends the acting user along in the label `ts_autotrack`, and opens a block around each task.

    A task starts with the user of its sender, in any process; `bind_user` inside holds until its end. A retry keeps the
    user of the first attempt. Add it as the first middleware: the functions of the others then run inside the block.

    Coroutines, and functions in the worker's threads, run inside the block. Functions in a process pool
    (`--use-process-pool`) have no user: Taskiq calls no middleware there. Tasks of a schedule (`schedule_by_time`) have
    none either: Taskiq calls no middleware when a schedule is made.

    Args:
        features: Names of features by the name of a task: `{"myapp.tasks:export": "report_export"}`. The event is sent
            after a task that raised nothing.
        properties: Names of properties, or of fields of the context such as `session_id`, that go along. All others
            stay in the sending process.

    Raises:
        TypeError: `properties` is one text instead of several.
        ValueError: A key or a name in `features`, or a name in `properties`, is not valid.
    """

    def __init__(self, *, features: Mapping[str, str] | None = None, properties: Iterable[str] = ()) -> None:
        super().__init__()
        self._uses = feature_uses(features, "task")
        self._carrier = Carrier(properties)

    def set_broker(self, broker: AsyncBroker) -> None:
        """Keep the broker, and take the place of the middleware that was added without code."""
        super().set_broker(broker)
        broker.middlewares[:] = [other for other in broker.middlewares if not getattr(other, "automatic", False)]

    def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
        """Write the acting user into the message, unless a worker sends the message again."""
        if HEADER not in message.labels and (header := self._carrier.header()) is not None:
            message.labels[HEADER] = header
        return message

    def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        """Open the block of the task."""
        begin_message(message.labels.setdefault(HEADER, NOBODY))
        return message

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Record the task's feature after a success, and leave the block."""
        try:
            if not result.is_err and (use := self._uses.get(message.task_name)):
                use()
        finally:
            end_message()
