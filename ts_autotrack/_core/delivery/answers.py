"""The one table of answers: which action each response asks for, and the words about it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from ts_autotrack._core.diagnostics import warn_of_server
from ts_autotrack._core.redaction import printable

if TYPE_CHECKING:
    from ts_autotrack.typing import Response, Transport

MAX_WORDS = 500
"""Bytes of a server's text that a message shows."""

_ACCEPTED = (200, 201, 202, 204)
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _REQUEST_TIMEOUT = 400, 401, 403, 408
_TOO_LARGE, _UNPROCESSABLE, _TOO_MANY, _SERVER_ERROR, _GATEWAY_TIMEOUT = 413, 422, 429, 500, 504
_MULTIPLE_CHOICES = 300
_EXCEPTION = re.compile(rb"([A-Z][A-Za-z0-9]{2,50}): ")
_NOT_ACCEPTED = re.compile(rb'^\s*\{.*?"success"\s*:\s*false', re.DOTALL)

Action: TypeAlias = Literal["acknowledge", "retry", "wait", "unauthorized", "forbidden", "split", "misconfigured"]
"""Actions of the exporter.

- "acknowledge": the batch has arrived.
- "retry": try again, with backoff; look for an item at fault if only this batch fails.
- "wait": try the same batch again, with backoff.
- "split": try the halves; quarantine an item that is refused alone.
- "unauthorized": keep everything, tell the operator, try again slowly.
- "forbidden", "misconfigured": the same, unless only this batch fails.
"""

ADVICE: dict[Action, str] = {
    "retry": "events cannot be delivered at the moment; they are kept and tried again.",
    "wait": "events cannot be delivered at the moment; they are kept and tried again.",
    "unauthorized": "the server does not accept the credentials; events are kept. Check {credentials}.",
    "forbidden": "the server or a firewall does not accept any events; they are kept. Check {credentials}, and any "
    "firewall on the way.",
    "misconfigured": "the answer is not {server}; events are kept. Check {endpoint} and any proxy on the way.",
    "split": "the server refuses all events; further ones are kept and tried again every minute.",
}
"""Advice to the operator for each action that keeps the events."""

THRIVESTACK = {
    "server": "ThriveStack's",
    "credentials": "THRIVESTACK_API_KEY or THRIVESTACK_AUTH_TOKEN",
    "endpoint": "THRIVESTACK_ENDPOINT",
}
"""Names in the advice, for transports without an attribute `names`."""

OPERATOR_ACTIONS = ("unauthorized", "forbidden", "misconfigured", "split")
"""Actions whose cause only an operator can mend, if all batches get the same answer."""
SEARCHABLE = ("retry", "forbidden", "misconfigured")
"""Actions whose cause may be an item."""


def action_for(response: Response) -> Action:
    """Return the action that a response asks for."""
    status = response.status
    # The body of an OTLP receiver's answer is an error message; a collector may quote a page in it.
    is_text = "protobuf" not in response.content_type.lower()
    if is_text and status in _ACCEPTED and b'"success"' in response.body and _NOT_ACCEPTED.match(response.body):
        return "retry"
    if is_text and (status in _ACCEPTED or status in (_BAD_REQUEST, _UNPROCESSABLE)) and _is_page(response):
        return "misconfigured"  # a proxy sends its login page with 200, its complaint about http for https with 400
    if status in _ACCEPTED:
        return "acknowledge"
    if status in _ACTIONS:
        return _ACTIONS[status]
    # Other answers below 300, such as 207 for a part of the items, do not say that all items have arrived.
    return "retry" if status < _MULTIPLE_CHOICES or status >= _SERVER_ERROR else "misconfigured"


_ACTIONS: dict[int, Action] = {
    _UNAUTHORIZED: "unauthorized",
    _FORBIDDEN: "forbidden",
    _REQUEST_TIMEOUT: "retry",
    _TOO_MANY: "wait",
    _BAD_REQUEST: "split",
    _TOO_LARGE: "split",
    _UNPROCESSABLE: "split",
}


def timed_out(response: Response) -> bool:
    """Return True if the server, or a proxy on the way, needed too long for the batch."""
    status = response.status
    return status in (_REQUEST_TIMEOUT, _GATEWAY_TIMEOUT) or (status == 0 and b"Timeout" in response.body[:40])


def words(response: Response) -> str:
    """Return a response as a text for messages."""
    text = shorten(response.body)
    return f"{response.status}: {text}" if response.status else text


def complaint(action: Action, path: str, response: Response, transport: Transport) -> str:
    """Return the message about a failure: the advice, the server and its words."""
    address = getattr(transport, "address", "")
    server = f" from {address}" if address else ""
    advice = ADVICE[action].format_map(getattr(transport, "names", THRIVESTACK))
    return f"{advice} Answer to {path}{server}: {words(response)}"


def error_type(response: Response) -> str | None:
    """Return the kind of a failure in few distinct words, for metrics; None if all items have arrived."""
    if action_for(response) == "acknowledge":
        return "rejected" if response.rejected else None
    if response.status:
        return str(response.status)
    found = _EXCEPTION.match(response.body)
    return found[1].decode() if found else "_OTHER"


def shorten(text: bytes) -> str:
    """Return the beginning of a text, without control characters."""
    return printable(text[:MAX_WORDS].decode(errors="replace")) + ("..." if len(text) > MAX_WORDS else "")


def surface_warnings(body: bytes) -> None:
    """Leave a notice for each distinct warning in the body of an answer."""
    if b'"warnings"' not in body:
        return
    try:
        warnings = json.loads(body).get("warnings") or []
    except (ValueError, AttributeError, RecursionError):
        return
    for warning in warnings if isinstance(warnings, list) else [warnings]:
        warn_of_server(text := printable(str(warning)[:MAX_WORDS]), f"the server warns: {text}")


def _is_page(response: Response) -> bool:
    return "html" in response.content_type.lower() or response.body.lstrip()[:1] == b"<"
