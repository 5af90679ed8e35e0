"""Two services under OpenTelemetry's instrumentation: `front` calls `back` over HTTP. Run by uvicorn.

Requests to the front are `/<block>/<number>`. Blocks: "process" relies on the settings, "block" asks for the ids in
outgoing baggage, "silent" turns them off, "nobody" has no block.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import httpx
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ts_autotrack import suppress, track, user_context
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

BLOCKS: dict[str, Callable[[], Any]] = {
    "process": nullcontext,
    "block": lambda: user_context(propagate=True),
    "silent": lambda: user_context(propagate=False),
    "suppressed": suppress,
}

HTTPXClientInstrumentor().instrument()
_client = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=50), timeout=60)


async def call_back(request: Request) -> PlainTextResponse:
    """Call the back service for the user of this request."""
    with BLOCKS[request.path_params["block"]]():
        for back in os.environ["BACKS"].split(","):
            answer = await _client.get(f"http://127.0.0.1:{back}/work/{request.path_params['number']}")
            answer.raise_for_status()
    return PlainTextResponse("ok")


async def work(request: Request) -> PlainTextResponse:
    """Use a feature; nothing here names the user."""
    track("work", {"number": int(request.path_params["number"]), "service": os.environ["NAME"]})
    return PlainTextResponse("ok")


def user_of(scope: Any) -> tuple[str, str] | None:
    """Return the user in the header `X-User`, and the user's account."""
    user = dict(scope["headers"]).get(b"x-user", b"").decode()
    return (user, f"account-{user}") if user else None


front: Any = Starlette(routes=[Route("/{block}/{number}", call_back)])
front = OpenTelemetryMiddleware(TrackingMiddleware(front, user=user_of))
_back = Starlette(routes=[Route("/work/{number}", work)])
trusting: Any = OpenTelemetryMiddleware(TrackingMiddleware(_back, trust_baggage=True))
distrusting: Any = OpenTelemetryMiddleware(TrackingMiddleware(_back))
bare: Any = OpenTelemetryMiddleware(_back)
