"""A WSGI and an ASGI application: GET /<number> exports a report. Neither uses a framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from work import perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Serve WSGI."""
    number = environ["PATH_INFO"].strip("/")
    if number:
        perform(int(number))
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


async def asgi(scope: dict[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
    """Serve ASGI."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    number = scope["path"].strip("/")
    if number:
        perform(int(number))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})
