"""Two services: the first names the user, the second credits the user. Prints the second service's event."""

from __future__ import annotations

import threading
import time

import httpx
import uvicorn
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.asgi import TrackingMiddleware


@track_feature("report_export")
async def export(_: object) -> PlainTextResponse:
    """Serve the feature; nothing here knows the user."""
    return PlainTextResponse("report")


reports = Starlette(routes=[Route("/reports", export)])
# Only the first service can reach the second service, so the second service trusts the baggage.
application = OpenTelemetryMiddleware(TrackingMiddleware(reports, trust_baggage=True))


def main() -> None:
    """Serve the second service, and call it as the first."""
    HTTPXClientInstrumentor().instrument()
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with user_context("user_123", group_id="account_456", propagate=True):
        print(httpx.get(f"http://127.0.0.1:{port}/reports").text)
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
