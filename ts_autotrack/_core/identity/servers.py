"""Warning for `bind_user` on a thread that serves other requests, too: the user may stay for the next request."""

from __future__ import annotations

import sys
from itertools import count

from ts_autotrack._core.diagnostics import warn_once

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import FrameType

MAX_CALLS = 100
"""Calls of `bind_user` that are looked at: a walk up the stack takes some microseconds."""
MAX_FRAMES = 200
"""Frames of a walk."""

SERVERS = (
    *("anyio", "bjoern", "celery", "cheroot", "concurrent.futures.thread", "daphne", "dramatiq", "eventlet", "gevent"),
    *("gunicorn", "huey", "hypercorn", "mod_wsgi", "rq", "uvicorn", "waitress"),
)
"""Modules whose threads serve one request, message or job after the other."""
_ASGI = "ts_autotrack.integrations.asgi.TrackingMiddleware to the application"
REMEDIES = {
    "flask": "ts_autotrack.integrations.flask.Tracking(app)",
    "django": "ts_autotrack.integrations.django.TrackingMiddleware to MIDDLEWARE",
    "starlette": _ASGI,
    "litestar": _ASGI,
    "quart": _ASGI,
}
"""Integration to use, by the framework whose code runs the caller."""

_calls = count()


def warn_of_reused_thread(frame: FrameType | None) -> None:
    """Warn once if `frame`, which binds a user outside of every request scope, runs in a server or pool."""
    if next(_calls) >= MAX_CALLS:
        return
    remedy, server = "", ""
    for _ in range(MAX_FRAMES):
        if frame is None or server:
            break
        module = str(frame.f_globals.get("__name__"))
        remedy = remedy or REMEDIES.get(module.partition(".")[0], "")
        server = next((name for name in SERVERS if module == name or module.startswith(name + ".")), "")
        frame = frame.f_back
    if not server:
        return
    if not remedy and "starlette" in sys.modules and server in {"anyio", "uvicorn"}:
        remedy = _ASGI  # a thread of the pool, whose stack does not show the framework
    warn_once(
        "reused thread",
        f"bind_user() outside of every request scope, on a thread that serves other requests, too ({server}): the user "
        f"may stay for the next request. Add {remedy or 'a `with request_scope():` block around each request or job'}.",
    )
