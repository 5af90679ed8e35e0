"""Faults on request, to rehearse an outage of ThriveStack with your own application."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, NamedTuple

from ts_autotrack.inspector._contract import ENDPOINTS, MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

KINDS = {
    "reset": "the connection is closed without an answer",
    "lost": "the events are taken, then the connection is closed without an answer",
    "hang": "there is no answer until the client gives up",
    "slow": "the answer comes after a second",
    "html": "a login page, as of a proxy, with status 200",
}
SLOW = 1.0
"""Delay of the fault `slow`, in seconds."""
_LEAST_STATUS, _MOST_STATUS, _NOT_MODIFIED, _WITH_RETRY_AFTER = 300, 599, 304, (429, 503)
_random = random.SystemRandom()


class Fault(NamedTuple):
    """One kind of failure.

    Attributes:
        kind: Key of KINDS, or an HTTP status.
        probability: Share of the matching requests to fail, from 0 to 1.
        text: Text in the body of matching requests; empty for all requests.
    """

    kind: str
    probability: float = 1.0
    text: str = ""


def parse(text: str) -> Fault:
    """Read `KIND[:PROBABILITY][=TEXT]`, such as "503", "reset:0.3" or "400=poison".

    Raises:
        ValueError: For any other text.
    """
    head, _, wanted = text.partition("=")
    kind, _, share = head.partition(":")
    known = kind in KINDS or (kind.isdecimal() and _LEAST_STATUS <= int(kind) <= _MOST_STATUS)
    try:
        probability = float(share or 1)
    except ValueError:
        probability = -1.0
    if not known or not 0 <= probability <= 1:
        message = (
            f"{text!r} is no fault; expected KIND[:PROBABILITY][=TEXT], where KIND is an HTTP status from "
            f"{_LEAST_STATUS} to {_MOST_STATUS} or one of {', '.join(KINDS)}"
        )
        raise ValueError(message)
    return Fault(kind, probability, wanted)


class Faults:
    """ASGI middleware in front of the inspector that makes requests with events fail.

    Reports, the page and its figures work all the same.

    Attributes:
        active: Current faults. The first matching fault hits a request.
    """

    def __init__(self, application: ASGIApp, show: Callable[[str], None] | None, active: list[Fault]) -> None:
        self.active = active
        self._application = application
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or make the request fail."""
        if not self.active or not _takes_events(scope):
            await self._application(scope, receive, send)
            return
        messages = await _body(receive)
        fault = self._draw(b"".join(message.get("body", b"") for message in messages))

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        if fault is None:
            await self._application(scope, replay, send)
            return
        if self._show is not None:
            self._show(f"{scope['path']} hit by fault {fault.kind}")
        await self._serve(fault.kind, scope, replay, receive, send)

    def _draw(self, body: bytes) -> Fault | None:
        for fault in self.active:
            if fault.text.encode() in body and _random.random() < fault.probability:
                return fault
        return None

    async def _serve(self, kind: str, scope: Scope, replay: Receive, receive: Receive, send: Send) -> None:
        if kind == "lost":
            await self._application(scope, replay, _nowhere)
        if kind in ("lost", "reset"):
            receive.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's: ASGI cannot reset a connection
        if kind in ("lost", "reset", "hang"):
            while (await receive())["type"] != "http.disconnect":
                pass
        elif kind == "slow":
            await asyncio.sleep(SLOW)
            await self._application(scope, replay, send)
        elif kind == "html":
            await _answer(send, 200, "text/html", b"<html><title>Please log in</title></html>")
        else:
            body = json.dumps({"success": False, "message": f"fault {kind} on request"}).encode()
            await _answer(send, int(kind), "application/json", body)


def _takes_events(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and "/" + scope["path"].rpartition("/")[2] in ENDPOINTS


async def _body(receive: Receive) -> list[Message]:
    """Return the messages of a body, up to the contract's limit: the inspector refuses a longer one unread."""
    messages = [await receive()]
    size = len(messages[-1].get("body", b""))
    while messages[-1].get("more_body") and size <= MAX_BODY:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
    return messages


async def _answer(send: Send, status: int, kind: str, body: bytes) -> None:
    if status == _NOT_MODIFIED:
        body = b""  # HTTP forbids a body in a 304
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    if status in _WITH_RETRY_AFTER:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _nowhere(_: Message) -> None:
    pass
