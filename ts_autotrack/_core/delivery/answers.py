"""The one table of answers: which action each response asks for, and the words about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, TypeAlias

from ts_autotrack._core.diagnostics import warn_of_server

if TYPE_CHECKING:
    from ts_autotrack.typing import Response

MAX_WORDS = 500
"""Bytes of a server's text that a message shows."""

_OK, _MULTIPLE_CHOICES = 200, 300
_BAD_REQUEST, _UNAUTHORIZED, _FORBIDDEN, _REQUEST_TIMEOUT = 400, 401, 403, 408
_TOO_LARGE, _UNPROCESSABLE, _TOO_MANY, _SERVER_ERROR = 413, 422, 429, 500

Action: TypeAlias = Literal["acknowledge", "retry", "unauthorized", "split", "misconfigured"]
"""Actions of the exporter.

- "acknowledge": the batch has arrived.
- "retry": try the same batch again, with backoff.
- "split": try the halves; quarantine an item that is refused alone.
- "unauthorized", "misconfigured": keep everything, tell the operator, try again slowly.
"""

ADVICE: dict[Action, str] = {
    "retry": "events cannot be delivered at the moment; they are kept and tried again.",
    "unauthorized": "the server does not accept the credentials; events are kept. Check THRIVESTACK_API_KEY or "
    "THRIVESTACK_AUTH_TOKEN.",
    "misconfigured": "the answer is not ThriveStack's; events are kept. Check THRIVESTACK_ENDPOINT and any proxy on "
    "the way.",
}
"""Advice to the operator for each action that keeps the events."""


def action_for(response: Response) -> Action:
    """Return the action that a response asks for."""
    status = response.status
    accepted = _OK <= status < _MULTIPLE_CHOICES
    if (accepted or status in (_BAD_REQUEST, _UNPROCESSABLE)) and _is_page(response):
        return "misconfigured"  # a proxy sends its login page with 200, its complaint about http for https with 400
    if accepted:
        return "acknowledge"
    if status in (0, _REQUEST_TIMEOUT, _TOO_MANY) or status >= _SERVER_ERROR:
        return "retry"
    if status in (_UNAUTHORIZED, _FORBIDDEN):
        return "unauthorized"
    if status in (_BAD_REQUEST, _TOO_LARGE, _UNPROCESSABLE):
        return "split"
    return "misconfigured"


def words(response: Response) -> str:
    """Return a response as a text for messages."""
    text = shorten(response.body)
    return f"{response.status}: {text}" if response.status else text


def shorten(text: bytes) -> str:
    """Return the beginning of a text."""
    return text[:MAX_WORDS].decode(errors="replace") + ("..." if len(text) > MAX_WORDS else "")


def surface_warnings(body: bytes) -> None:
    """Leave a notice for each distinct warning in the body of an answer."""
    if b'"warnings"' not in body:
        return
    try:
        warnings = json.loads(body).get("warnings") or []
    except (ValueError, AttributeError, RecursionError):
        return
    for warning in warnings if isinstance(warnings, list) else [warnings]:
        warn_of_server(text := str(warning)[:MAX_WORDS], f"the server warns: {text}")


def _is_page(response: Response) -> bool:
    return "html" in response.content_type.lower() or response.body.lstrip()[:1] == b"<"
