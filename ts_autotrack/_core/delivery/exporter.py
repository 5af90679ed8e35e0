"""The exporter: sends a queue's items in batches and acts on each answer."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.delivery.answers import ADVICE, action_for, shorten, surface_warnings, words
from ts_autotrack._core.diagnostics import log, warn_of_server, warn_once
from ts_autotrack.typing import RejectedItem, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.answers import Action
    from ts_autotrack._core.delivery.backoff import Backoff
    from ts_autotrack._core.delivery.queue import EventQueue
    from ts_autotrack.typing import Transport


def _nothing() -> None:
    pass


class Exporter:
    """Delivers the items of a queue in order, retries, isolates refused items, and keeps the account.

    Attributes:
        backoff: Time of the next attempt.
        deadline: Monotonic time after which nothing is sent; None without one.
        sending: True while a request is in progress.
    """

    def __init__(self, queue: EventQueue, counters: Counters, backoff: Backoff) -> None:
        self.backoff = backoff
        self.deadline: float | None = None
        self.sending = False
        self._queue = queue
        self._counters = counters
        # Sizes of the next batches, the last one first, after the server refused their items together.
        self._split_sizes: list[int] = []

    def export(self, transport: Transport, request_timeout: float, after_each: Callable[[], None] = _nothing) -> None:
        """Send the items present at the start, until all are settled, a backoff begins or the deadline passes.

        Later items wait for the next call: with an outbox they arrive at any time and would go out in tiny requests.

        Args:
            transport: Destination.
            request_timeout: Seconds for one request.
            after_each: Called after each request.
        """
        left = self._queue.pending
        while left > 0 and not self.backoff.waiting and (timeout := self._timeout(request_timeout)) > 0:
            path, bodies = self._next_batch()
            if not bodies:
                return
            self.backoff.attempt()
            self.sending = True
            try:
                response = transport.send(path, bodies, timeout)
            except Exception as error:  # noqa: BLE001 - an answer is missing, whatever the reason
                response = Response(0, f"{type(error).__name__}: {error}".encode())
            self.sending = False
            left -= self._settle(path, bodies, response)
            after_each()

    def _timeout(self, request_timeout: float) -> float:
        return request_timeout if self.deadline is None else min(request_timeout, self.deadline - time.monotonic())

    def _next_batch(self) -> tuple[str, list[bytes]]:
        """Return an endpoint and the longest run of the oldest items that one request to it may hold."""
        most = self._split_sizes[-1] if self._split_sizes else MAX_ITEMS
        first, size = "", 1
        bodies: list[bytes] = []
        for path, body, _ in self._queue.peek(most):
            first = first or path
            size += len(body) + 1  # with the comma before the item, or the closing bracket
            if path != first or (bodies and size > MAX_BODY):
                break
            bodies.append(body)
        return first, bodies

    def _settle(self, path: str, bodies: list[bytes], response: Response) -> int:
        """Act on the answer to a batch; return the number of items settled."""
        action, count = action_for(response), len(bodies)
        if action not in ("acknowledge", "split"):
            self._postpone(action, path, response)
            return 0
        del self._split_sizes[-1:]  # if there are any, the batch was the last one
        if action == "split" and count > 1:
            self._split_sizes += [count - count // 2, count // 2]
            return 0
        self.backoff.reset_backoff()
        if action == "split":
            self._reject(path, bodies[0], words(response))
        else:
            self._queue.acknowledge(count)
            self._counters.delivered += count
            log("debug", "%s: delivered %d", path, count)
            surface_warnings(response.body)
        return count

    def _reject(self, path: str, body: bytes, reason: str) -> None:
        rejected_at = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
        item = RejectedItem(path, body.decode(errors="replace"), reason, rejected_at)
        self._queue.reject(item)
        self._counters.reject(item)
        warn_of_server(reason, f"the server refuses an item for {path} for good ({reason}): {shorten(body)}")

    def _postpone(self, action: Action, path: str, response: Response) -> None:
        needs_operator = action in ("unauthorized", "misconfigured")
        delay = self.backoff.fail(needs_operator=needs_operator, retry_after=response.retry_after)
        log("debug", "%s: %s; next attempt in %.1f s", path, words(response), delay)
        warn_once((action, response.status), f"{ADVICE[action]} Answer to {path}: {words(response)}")
