"""What to do with each answer: the one table, and the exporter that acts on it."""

from __future__ import annotations

import json
import random
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS
from ts_autotrack._core.diagnostics import say, warn_of_server, warn_once
from ts_autotrack.typing import RejectedItem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.queue import EventQueue

BACKOFF_FIRST, BACKOFF_MOST = 0.5, 60.0
"""Seconds: the exponential backoff's first ceiling and its last."""
SLOW_PROBE = 60.0
"""Seconds between two attempts while only an operator can mend it."""
MOST_RETRY_AFTER = 3_600.0
"""Seconds: a server that asks for more is asked again after an hour."""

_OK, _REQUEST_TIMEOUT, _TOO_LARGE, _UNPROCESSABLE, _TOO_MANY = 200, 408, 413, 422, 429
_MULTIPLE_CHOICES, _BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _SERVER_ERROR = 300, 400, 401, 403, 500

Verdict: TypeAlias = Literal["delivered", "retry", "unauthorized", "split", "misconfigured"]


class Response(NamedTuple):
    """What came of one request.

    Attributes:
        status: The HTTP status; 0 if no answer came.
        body: The answer's body, or what went wrong as text.
        retry_after: The `Retry-After` header, in seconds from now, if there was one.
        content_type: The `Content-Type` header.
    """

    status: int
    body: bytes = b""
    retry_after: float | None = None
    content_type: str = ""


class Transport(Protocol):
    """Where batches go. `send` may block for `timeout` seconds; it raises nothing: no answer is a status of 0."""

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Send one array of encoded items to an endpoint such as "/track"."""
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...


def verdict(response: Response) -> Verdict:
    """Return what to do with the batch that got `response`."""
    status = response.status
    accepted = _OK <= status < _MULTIPLE_CHOICES
    if (accepted or status in (_BAD_REQUEST, _UNPROCESSABLE)) and _is_page(response):
        return "misconfigured"  # a proxy's: its login page comes with 200, its complaint about http for https with 400
    if accepted:
        return "delivered"
    if status in (0, _REQUEST_TIMEOUT, _TOO_MANY) or status >= _SERVER_ERROR:
        return "retry"
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return "unauthorized"
    if status in (_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE):
        return "split"
    return "misconfigured"


def _is_page(response: Response) -> bool:
    return "html" in response.content_type.lower() or response.body.lstrip()[:1] == b"<"


def _nothing() -> None:
    pass


class Exporter:
    """Delivers a backlog of items in order: batches them, retries, isolates what the server refuses, keeps account.

    Attributes:
        deadline: Monotonic time after which nothing more is sent; None while there is no hurry.
        not_before: Monotonic time of the next attempt; 0 if there is nothing to wait for.
        sending: Whether a request is under way.
    """

    def __init__(self, backlog: EventQueue, counts: Counters, jitter: Callable[[], float] = random.random) -> None:
        self._backlog = backlog
        self.deadline: float | None = None
        self._counts = counts
        self.not_before = 0.0
        self.sending = False
        self._asked_until = 0.0  # the server has said not to come before that
        self._failures = 0
        # Lengths of stretches at the head of the backlog, the last one first, that are tried one by one because the
        # server has refused them together.
        self._suspects: list[int] = []
        self._attempted = 0.0
        self._jitter = jitter

    @property
    def waiting(self) -> bool:
        """Whether the next attempt is not due yet."""
        return self.not_before > time.monotonic()

    def hurry(self) -> None:
        """Make the next attempt as soon as the server itself allows it; at most once a second."""
        self.not_before = min(self.not_before, max(self._attempted + 1.0, self._asked_until))

    def forgive(self) -> None:
        """Forget past failures: something got through, or the settings have changed."""
        self._failures, self.not_before, self._asked_until = 0, 0.0, 0.0

    def export(self, transport: Transport, request_timeout: float, after_each: Callable[[], None] = _nothing) -> None:
        """Send what is due, until all that is there now is settled, an attempt has to wait, or the deadline is there.

        What comes meanwhile is left: with an outbox it comes at any time, and would go out in tiny requests.

        Args:
            transport: Where to.
            request_timeout: Seconds for one request.
            after_each: Called after each request.
        """
        left = self._backlog.pending
        while left > 0 and not self.waiting and (timeout := self._timeout(request_timeout)) > 0:
            path, bodies = self._batch()
            if not bodies:
                return
            self._attempted = time.monotonic()
            self.sending = True
            try:
                response = transport.send(path, bodies, timeout)
            except Exception as error:  # noqa: BLE001 - no answer is no answer, whatever the reason
                response = Response(0, f"{type(error).__name__}: {error}".encode())
            self.sending = False
            left -= self._settle(path, bodies, response)
            after_each()

    def _timeout(self, request_timeout: float) -> float:
        return request_timeout if self.deadline is None else min(request_timeout, self.deadline - time.monotonic())

    def _batch(self) -> tuple[str, list[bytes]]:
        """Return an endpoint and the longest run of items at the head that go there in one request."""
        most = self._suspects[-1] if self._suspects else MAX_ITEMS
        first, size = "", 1
        bodies: list[bytes] = []
        for path, body, _ in self._backlog.peek(most):
            first = first or path
            size += len(body) + 1  # and the comma before it, or the closing bracket
            if path != first or (bodies and size > MAX_BODY):
                break
            bodies.append(body)
        return first, bodies

    def _settle(self, path: str, bodies: list[bytes], response: Response) -> int:
        """Do what the answer asks for; return how many items are settled by it."""
        answer, count = verdict(response), len(bodies)
        if answer not in ("delivered", "split"):
            self._postpone(answer, path, response)
            return 0
        del self._suspects[-1:]  # the batch was the innermost stretch, if there are any
        if answer == "split" and count > 1:
            self._suspects += [count - count // 2, count // 2]
            return 0
        self.forgive()
        if answer == "split":
            self._reject(path, bodies[0], _words(response))
        else:
            self._backlog.acknowledge(count)
            self._counts.delivered += count
            say("debug", "%s: delivered %d", path, count)
            _surface_warnings(response.body)
        return count

    def _reject(self, path: str, body: bytes, words: str) -> None:
        item = RejectedItem(
            path, body.decode(errors="replace"), words, f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
        )
        self._backlog.reject(item)
        self._counts.reject(item)
        warn_of_server(words, f"the server refuses an item for {path} for good ({words}): {_cut(body)}")

    def _postpone(self, answer: Verdict, path: str, response: Response) -> None:
        self._failures += 1
        ceiling = min(BACKOFF_MOST, BACKOFF_FIRST * 2 ** min(self._failures - 1, 16))
        delay = SLOW_PROBE if answer in ("unauthorized", "misconfigured") else ceiling * self._jitter()  # full jitter
        asked = min(response.retry_after or 0.0, MOST_RETRY_AFTER)
        delay = max(delay, asked)
        now = time.monotonic()
        self.not_before, self._asked_until = now + delay, now + asked
        say("debug", "%s: %s; next attempt in %.1f s", path, _words(response), delay)
        warn_once((answer, response.status), f"{_ADVICE[answer]} Answer to {path}: {_words(response)}")


_ADVICE: dict[Verdict, str] = {
    "retry": "events cannot be delivered at the moment; they are kept and tried again.",
    "unauthorized": "the server does not accept the credentials; events are kept. Check THRIVESTACK_API_KEY or "
    "THRIVESTACK_AUTH_TOKEN.",
    "misconfigured": "what answers is no ThriveStack endpoint; events are kept. Check THRIVESTACK_ENDPOINT and "
    "any proxy on the way.",
}


def _surface_warnings(body: bytes) -> None:
    if b'"warnings"' not in body:
        return
    try:
        warnings = json.loads(body).get("warnings") or []
    except (ValueError, AttributeError, RecursionError):
        return
    for warning in warnings if isinstance(warnings, list) else [warnings]:
        warn_of_server(text := str(warning)[:500], f"the server warns: {text}")


def _words(response: Response) -> str:
    text = _cut(response.body)
    return f"{response.status}: {text}" if response.status else text


def _cut(text: bytes, most: int = 500) -> str:
    return text[:most].decode(errors="replace") + ("..." if len(text) > most else "")
