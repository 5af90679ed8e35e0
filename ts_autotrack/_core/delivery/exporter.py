"""The exporter: sends a queue's items in batches and acts on each answer."""

from __future__ import annotations

import _thread
import time
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from ts_autotrack._core import observers
from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.delivery.answers import (
    OPERATOR_ACTIONS,
    SEARCHABLE,
    action_for,
    complaint,
    error_type,
    shorten,
    surface_warnings,
    timed_out,
    words,
)
from ts_autotrack._core.delivery.backoff import Backoff
from ts_autotrack._core.delivery.batch import Batch, describe
from ts_autotrack._core.delivery.endpoint import MIN_TIMED_OUT, Endpoint
from ts_autotrack._core.delivery.outage import Outage
from ts_autotrack._core.diagnostics import log, notice, warn_of_server
from ts_autotrack.typing import FinishedRequest, RejectedItem, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.answers import Action
    from ts_autotrack._core.delivery.backoff import Pacing
    from ts_autotrack._core.delivery.queue import EventQueue, Item
    from ts_autotrack.typing import RequestOutcome, Transport

MAX_PASSED = 5_000
"""Items that newer ones may pass: isolated items, and items of endpoints that are away."""
MAX_UNWRITTEN = 100
"""Refused items that go to the quarantine together."""
UNREADABLE_PAUSE = 1.0
"""Seconds between two attempts to read a queue that has items but yields none."""
NEVER = float("inf")


def _nothing() -> None:
    pass


class Exporter:
    """Delivers the items of a queue in order, retries, goes around faults, and keeps the account.

    Attributes:
        deadline: Monotonic time after which nothing is sent; None without one.
        sending: Items of the request in progress; 0 without one.
        next_attempt_at: Monotonic time of the next attempt at the items present; 0 if nothing has to be waited for.
        blocked: True if newer items have to wait until then, too.
        passed: Items that newer ones have passed.
        count_waiting: Returns the number of unsettled events, for messages.
        request_lock: Held during each request; a captured test holds the lock, so that no request begins.
    """

    def __init__(
        self, queue: EventQueue, counters: Counters, pacing: Pacing, backoff: Callable[[Pacing], Backoff] = Backoff
    ) -> None:
        self.deadline: float | None = None
        self.sending = 0
        self.next_attempt_at = 0.0
        self.blocked = False
        self.passed = 0
        self.count_waiting: Callable[[], int] = lambda: queue.pending
        self.request_lock = _thread.allocate_lock()
        self._queue = queue
        self._counters = counters
        self._new_backoff = partial(backoff, pacing)
        self._endpoints: dict[str, Endpoint] = {}
        self._refused: dict[bytes, RejectedItem] = {}  # items that are not yet in the quarantine
        self._outage = Outage()
        self._forbidden_until = 0.0  # by the server's Retry-After

    @property
    def waiting(self) -> bool:
        """True if no item of the queue may be sent yet."""
        return self.next_attempt_at > time.monotonic()

    @property
    def failing(self) -> bool:
        """True after a failed request, until one is accepted."""
        return self._outage.active

    def skip_backoff(self) -> None:
        """Make the next attempts as soon as the server's `Retry-After` allows, at most one a second."""
        for endpoint in self._endpoints.values():
            if endpoint.backoff.waiting:
                endpoint.backoff.skip_backoff()
                self.next_attempt_at = min(
                    self.next_attempt_at, max(endpoint.backoff.next_attempt_at, self._forbidden_until)
                )

    def reset_backoff(self) -> None:
        """Forget past failures: the settings changed."""
        self.next_attempt_at = self._forbidden_until = 0.0
        for endpoint in self._endpoints.values():
            endpoint.reset()

    def postpone(self, seconds: float) -> None:
        """Wait after a fault of this library."""
        self.next_attempt_at, self.blocked = time.monotonic() + seconds, True

    def export(self, transport: Transport, request_timeout: float, after_each: Callable[[], None] = _nothing) -> None:
        """Send the items present at the start, until all are settled or not due, or the deadline passes.

        Later items wait for the next call: with an outbox they arrive at any time and would go out in tiny requests.

        Args:
            transport: Destination.
            request_timeout: Seconds for one request.
            after_each: Called after each request.
        """
        left = self._queue.pending
        idle = left > 0
        try:
            while left > 0 and (timeout := self._timeout(request_timeout)) > 0:
                batch = self._next_batch()
                if batch is None:
                    break
                idle = False
                left -= self._send(transport, batch, timeout)
                after_each()
        finally:
            self._write_refused()
        if idle and not self.waiting:  # the queue cannot be read at the moment
            self.postpone(UNREADABLE_PAUSE)
        after_each()

    def _timeout(self, request_timeout: float) -> float:
        return request_timeout if self.deadline is None else min(request_timeout, self.deadline - time.monotonic())

    def _next_batch(self) -> Batch | None:
        """Return the oldest items that one request may hold; None if no item is due.

        Items pass older ones only if these are isolated items, or their endpoint is away.
        """
        now, self.next_attempt_at, self.blocked = time.monotonic(), NEVER, False
        if self._forbidden_until > now:
            self.next_attempt_at, self.blocked = self._forbidden_until, True
            return None
        batch = self._scan(self._queue.peek(MAX_ITEMS + self.passed), now)
        if batch is None and not self.blocked:
            self._write_refused()  # before the rotation: the positions belong to the present file
            # In an outage an earlier worker's items stay ahead of this worker's.
            in_order = self._outage.active and any(endpoint.away for endpoint in self._endpoints.values())
            if self._queue.rotate(in_order=in_order):
                batch = self._scan(self._queue.peek(MAX_ITEMS), now)
        if batch is not None or self.next_attempt_at == NEVER:
            self.next_attempt_at = 0.0
        return batch

    def _scan(self, items: list[Item], now: float) -> Batch | None:
        """Find the next batch among the oldest items; without one, note the time of the next attempt."""
        for position, (path, body, _) in enumerate(items):
            endpoint = self._endpoints.get(path) or self._add_endpoint(path)
            if body in self._refused:
                continue
            isolated = endpoint.isolated.get(body)
            due_at = endpoint.backoff.next_attempt_at
            if isolated is not None and not endpoint.away:
                due_at = max(due_at, isolated.retry_at)
            if due_at <= now:
                if endpoint.away:
                    return self._probe(endpoint, items)
                return self._run(endpoint, items, position, alone=isolated is not None)
            self.next_attempt_at = min(self.next_attempt_at, due_at)
            if not endpoint.away and isolated is None:
                self.blocked = True  # nothing passes the items of an endpoint that may be well again soon
                return None
        return None

    def _run(self, endpoint: Endpoint, items: list[Item], first: int, *, alone: bool) -> Batch:
        """Return the longest run of items for one endpoint, from a position on, that one request may hold."""
        most, size = 1 if alone else endpoint.most, 1
        bodies: list[bytes] = []
        passed = list(range(first))
        count = first
        troubled = bool(self._refused) or any(other.away or other.isolated for other in self._endpoints.values())
        for path, body, _ in items[first:] if first else items:
            if troubled and bodies and self._passable(path, body):
                passed.append(count)
            else:
                size += len(body) + 1  # with the comma before the item, or the closing bracket
                if path != endpoint.path or (bodies and size > MAX_BODY) or len(bodies) == most:
                    break
                bodies.append(body)
            count += 1
        while passed and passed[-1] == count - 1:
            count -= 1
            passed.pop()
        return Batch(endpoint, bodies, count, passed)

    def _passable(self, path: str, body: bytes) -> bool:
        endpoint = self._endpoints.get(path) or self._add_endpoint(path)
        return endpoint.away or body in endpoint.isolated or body in self._refused

    def _probe(self, endpoint: Endpoint, items: list[Item]) -> Batch:
        """Return a single item of an endpoint that is away."""
        positions = [position for position, item in enumerate(items) if item[0] == endpoint.path]
        position = positions[endpoint.probe % len(positions)]
        return Batch(endpoint, [items[position][1]], position + 1, range(position))

    def _add_endpoint(self, path: str) -> Endpoint:
        endpoint = self._endpoints[path] = Endpoint(path, self._new_backoff())
        return endpoint

    def _send(self, transport: Transport, batch: Batch, timeout: float) -> int:
        """Send a batch and act on the answer; return the number of items settled."""
        batch.endpoint.backoff.attempt()
        began, self.sending = time.monotonic(), len(batch.bodies)
        try:
            with self.request_lock:
                response = transport.send(batch.endpoint.path, batch.bodies, timeout)
        except Exception as error:  # noqa: BLE001 - any error means that no answer came
            response = Response(0, f"{type(error).__name__}: {error}".encode())
        self.sending = 0
        seconds = time.monotonic() - began
        settled, outcome = self._react(transport, batch, response)
        if observers.observers:
            path, count = batch.endpoint.path, len(batch.bodies)
            rejected = count if outcome == "rejected" else response.rejected if outcome == "delivered" else 0
            observers.tell(
                FinishedRequest(path, count, seconds, outcome, rejected, response.status, error_type(response))
            )
        return settled

    def _react(self, transport: Transport, batch: Batch, response: Response) -> tuple[int, RequestOutcome]:
        """Act on the answer; return the number of items settled, and the outcome of the request."""
        action = action_for(response)
        if action == "acknowledge":
            self._acknowledge(batch, response)
            return len(batch.bodies), "delivered"
        if action == "split" and len(batch.bodies) > 1:
            batch.endpoint.split(len(batch.bodies))
        elif action == "split" and batch.endpoint.refuse(batch.bodies[0]):
            self._refuse(batch, response)
            return 1, "rejected"
        elif self._fail(action, batch, response, transport):
            return 0, "rejected"
        return 0, "kept"

    def _acknowledge(self, batch: Batch, response: Response) -> None:
        endpoint, count = batch.endpoint, len(batch.bodies)
        if self._outage.active:
            self._outage.end(self.count_waiting())
        # First: flush() may return and stats() be read once nothing is pending.
        self._counters.delivered += count - response.rejected
        if response.rejected:
            self._tell_of_refusals(endpoint, count, response)
        self._queue.acknowledge(batch.through, batch.passed)
        self.passed = min(len(batch.passed), MAX_PASSED)
        endpoint.succeed(batch.bodies)
        if batch.passed:
            self._tell_of_others(endpoint)
        log("debug", "%s: delivered %d", endpoint.path, count)
        surface_warnings(response.body)

    def _tell_of_refusals(self, endpoint: Endpoint, count: int, response: Response) -> None:
        """Count the items that the server left out of a batch. Their identity is unknown: a retry would duplicate."""
        self._counters.rejected += response.rejected
        reason = shorten(response.body)
        message = f"the server refuses {response.rejected} of {count} events for {endpoint.path} for good, and does not"
        warn_of_server(reason, f"{message} say which: {reason}")

    def _tell_of_others(self, endpoint: Endpoint) -> None:
        """Mention each endpoint that is away while others accept items."""
        for other in self._endpoints.values():
            if other.away and not other.told:
                other.told = True
                message = (
                    f"{other.path} accepts no events; they wait until it does, and events for {endpoint.path} go first"
                )
                notice("endpoint", message)

    def _fail(self, action: Action, batch: Batch, response: Response, transport: Transport) -> bool:
        """Keep the items, choose the next batch, and schedule it; return True if the item is refused instead."""
        now, endpoint, bodies = time.monotonic(), batch.endpoint, batch.bodies
        searched = endpoint.searching  # other parts of the batch may have been accepted
        endpoint.failures += 1
        if bodies[0] in endpoint.isolated and not endpoint.away and action in SEARCHABLE:
            if at_fault := endpoint.fail_alone(bodies[0], now):
                self._refuse(batch, response)
            return at_fault
        endpoint.others_failed += 1
        if timed_out(response) and len(bodies) > MIN_TIMED_OUT:
            endpoint.time_out(len(bodies))
        elif action in SEARCHABLE and self._queue.pending > 1:
            endpoint.search(bodies, now)
        concluded = endpoint.away or self._queue.pending == 1 or action not in SEARCHABLE
        delay = endpoint.backoff.fail(
            needs_operator=action in OPERATOR_ACTIONS and concluded, retry_after=response.retry_after
        )
        self._forbidden_until = max(self._forbidden_until, endpoint.backoff.forbidden_until)
        log("debug", "%s: %s; next attempt in %.1f s", endpoint.path, words(response), delay)
        if self._outage.active or not searched:
            told = action if concluded else "retry"  # neither the credentials nor the endpoint are to blame yet
            self._outage.fail(told, complaint(told, endpoint.path, response, transport))
        return False

    def _refuse(self, batch: Batch, response: Response) -> None:
        """Set an item aside that is refused for good, or fails alone again and again."""
        path, (body,) = batch.endpoint.path, batch.bodies
        reason, at = words(response), f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
        batch.endpoint.isolated.pop(body, None)
        self._refused[body] = RejectedItem(path, body.decode(errors="replace"), reason, at)
        warn_of_server(reason, f"the server refuses {describe(path, body)} for good: {reason}")
        if len(self._refused) >= MAX_UNWRITTEN:
            self._write_refused()

    def _write_refused(self) -> None:
        """Move the refused items from the queue to the quarantine, in one transaction."""
        if not self._refused:
            return
        bodies = [body for _, body, _ in self._queue.peek(MAX_ITEMS + self.passed)]
        found = [position for position, body in enumerate(bodies) if body in self._refused]
        if found:
            count, refused = found[-1] + 1, set(found)
            items = [self._refused[bodies[position]] for position in found]  # a body may be there twice, after a crash
            for position, item in zip(found, items, strict=True):
                self._refused.pop(bodies[position], None)
                self._counters.reject(item)
            self._queue.reject(items, count, [position for position in range(count) if position not in refused])
