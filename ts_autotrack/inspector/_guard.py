"""Refuses requests that come from elsewhere than a program on this machine.

A web page of another site can reach a server on 127.0.0.1: by a name of its own that resolves to this address (DNS
rebinding, seen in `Host`), by a form or script (seen in `Origin`), or by an
image or the like (seen in `Sec-Fetch-Site`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from ts_autotrack._core.contract import INSPECTOR

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORBIDDEN, MISDIRECTED = 403, 421
MARK = (INSPECTOR.encode(), b"1")
"""Header of all answers."""
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_LOCAL_PAGE = re.compile(f"https?://{_LOCAL.pattern}", re.IGNORECASE)


class LocalOnly:
    """ASGI middleware: answers requests to this machine's own names, and none of another site's pages."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        application = self._application
        if scope["type"] == "http":
            application = _refusal(scope) or application
        await application(scope, receive, send)


class Marked:
    """ASGI middleware: says in each answer that the server is an inspector, to which applications may report."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), MARK]}
            await send(message)

        await self._application(scope, receive, marked)


def _refusal(scope: Scope) -> PlainTextResponse | None:
    hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
    if len(hosts) != 1 or not _LOCAL.fullmatch(hosts[0]):
        text = "the inspector answers to the hosts 127.0.0.1, localhost and [::1] only\n"
        return PlainTextResponse(text, MISDIRECTED)
    # Images and scripts have no Origin. Their page cannot read the answers, but would hold streams.
    embedded = "navigate" not in _values(scope, b"sec-fetch-mode")
    elsewhere = embedded and "cross-site" in _values(scope, b"sec-fetch-site")
    if elsewhere or not all(_LOCAL_PAGE.fullmatch(origin) for origin in origins):
        return PlainTextResponse("the inspector answers no web page of another site\n", FORBIDDEN)
    return None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
