"""Measure the time that tracking adds to a request of a web application, in process.

    python -m tests.benchmarks._web STACK CONTENDER URL ROUNDS     prints a JSON object with a list for each figure

The bare application and the tracked application take turns. Each request of the tracked application names its user and
leaves one event of a feature, or what the contender has in place of these: a span of the request. The events are
delivered between the measured batches. A figure is the best of a few batches, because a shared machine only adds time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks._contenders import FEATURE, GROUP, USER

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS, REPEATS = 100, 10
"""Requests of a batch, and batches of a round."""
HEADERS = {
    "host": "localhost",
    "user-agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36",
    "referer": "https://example.com/reports?page=2",
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Windows"',
    "accept": "*/*",
    "cookie": "session=0123456789abcdef",
}
PATH, TEMPLATE = "/reports/3", "/reports/{number}"


class Tracked(NamedTuple):
    """A contender, started.

    Attributes:
        endpoint: Decorates the endpoint.
        application: Wraps an ASGI application.
        flask: Wraps or extends an application of Flask, and returns a WSGI application.
        django: Entries of Django's MIDDLEWARE.
        finish: Returns when all events so far have been delivered.
    """

    endpoint: Callable[[Any], Any]
    application: Callable[[Any], Any]
    flask: Callable[[Any], Any]
    django: tuple[str, ...]
    finish: Callable[[], object]


BARE = Tracked(lambda endpoint: endpoint, lambda app: app, lambda app: app, (), lambda: None)


def starlette(tracked: Tracked) -> Callable[[int], None]:
    """Return a function that lets an application of Starlette serve requests."""
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.responses import PlainTextResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def report(request: Any) -> PlainTextResponse:
        return PlainTextResponse(request.path_params["number"])

    return _served(tracked.application(Starlette(routes=[Route(TEMPLATE, tracked.endpoint(report))])))


def fastapi(tracked: Tracked) -> Callable[[int], None]:
    """Return a function that lets an application of FastAPI serve requests."""
    from fastapi import FastAPI  # noqa: PLC0415

    async def report(number: int) -> int:
        return number

    app = FastAPI()
    app.get(TEMPLATE)(tracked.endpoint(report))
    return _served(tracked.application(app))


def flask(tracked: Tracked) -> Callable[[int], None]:
    """Return a function that lets an application of Flask serve requests."""
    from flask import Flask  # noqa: PLC0415
    from werkzeug.test import EnvironBuilder  # noqa: PLC0415

    def report(number: str) -> str:
        return number

    app = Flask("benchmark")
    app.get(TEMPLATE.replace("{", "<").replace("}", ">"))(tracked.endpoint(report))
    application = tracked.flask(app)
    environ = EnvironBuilder(PATH, headers=list(HEADERS.items())).get_environ()
    return _served_by_wsgi(application, environ)


def django(tracked: Tracked) -> Callable[[int], None]:
    """Return a function that lets an application of Django serve requests."""
    import django  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415
    from django.http import HttpResponse  # noqa: PLC0415
    from django.urls import path  # noqa: PLC0415
    from werkzeug.test import EnvironBuilder  # noqa: PLC0415

    def report(_: object, number: str) -> HttpResponse:
        return HttpResponse(number)

    urls = ModuleType(f"urls_{len(tracked.django)}")
    urls.urlpatterns = [path("reports/<number>", tracked.endpoint(report))]  # type: ignore[attr-defined]
    sys.modules[urls.__name__] = urls
    if not settings.configured:
        settings.configure(SECRET_KEY="k", ALLOWED_HOSTS=["*"], TS_AUTOTRACK={"user": lambda _: (USER, GROUP)})
        django.setup()
    settings.MIDDLEWARE, settings.ROOT_URLCONF = [*tracked.django], urls.__name__
    from django.core.handlers.wsgi import WSGIHandler  # noqa: PLC0415

    handler = WSGIHandler()

    def application(environ: Any, start_response: Any) -> Any:
        settings.ROOT_URLCONF = urls.__name__
        return handler(environ, start_response)

    environ = EnvironBuilder(PATH, headers=list(HEADERS.items())).get_environ()
    return _served_by_wsgi(application, environ)


def _served_by_wsgi(application: Any, environ: dict[str, Any]) -> Callable[[int], None]:
    """Return a function that sends requests to a WSGI application."""

    def serve(requests: int) -> None:
        for _ in range(requests):
            body = application(dict(environ), lambda *_: None)
            for _ in body:
                pass
            body.close()

    return serve


def _served(app: Any) -> Callable[[int], None]:
    """Return a function that sends requests to an ASGI application."""
    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "scheme": "http", "method": "GET", "path": PATH}
    scope |= {"query_string": b"", "server": ("localhost", 80), "client": ("::1", 9)}
    loop = asyncio.new_event_loop()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(_: object) -> None: ...

    async def serve(requests: int) -> None:
        for _ in range(requests):
            await app({**scope, "headers": list(headers)}, receive, send)

    return lambda requests: loop.run_until_complete(serve(requests))


def ts_autotrack(url: str) -> Tracked:
    """Return ts_autotrack: a tracked endpoint, and the middleware with a resolver."""
    from ts_autotrack import configure, flush, track_feature  # noqa: PLC0415
    from ts_autotrack.integrations.asgi import TrackingMiddleware  # noqa: PLC0415

    def tracked_flask(app: Any) -> Any:
        from ts_autotrack.integrations.flask import Tracking  # noqa: PLC0415

        Tracking(app, lambda: (USER, GROUP))
        return app

    configure(endpoint=url, api_key="k")
    return Tracked(
        track_feature(FEATURE),
        lambda app: TrackingMiddleware(app, lambda _: (USER, GROUP)),
        tracked_flask,
        ("ts_autotrack.integrations.django.TrackingMiddleware",),
        lambda: flush(60),
    )


def opentelemetry(url: str) -> Tracked:
    """Return OpenTelemetry's middlewares, which make a span of each request; under ASGI also of each message sent."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.instrumentation.asgi import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        OpenTelemetryMiddleware,
    )
    from opentelemetry.instrumentation.wsgi import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        OpenTelemetryMiddleware as WsgiMiddleware,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
    return Tracked(
        BARE.endpoint,
        lambda app: OpenTelemetryMiddleware(app, tracer_provider=provider),
        lambda app: WsgiMiddleware(app, tracer_provider=provider),
        ("opentelemetry.instrumentation.django.middleware.otel_middleware._DjangoMiddleware",),
        lambda: provider.force_flush(60_000),
    )


def sentry(url: str) -> Tracked:
    """Return Sentry's middlewares, which make a transaction of each request."""
    import sentry_sdk  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
    from sentry_sdk.integrations.asgi import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        SentryAsgiMiddleware,
    )
    from sentry_sdk.integrations.wsgi import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        SentryWsgiMiddleware,
    )

    sentry_sdk.init(f"{url.replace('://', '://key@')}/1", traces_sample_rate=1.0, default_integrations=False)
    return Tracked(BARE.endpoint, SentryAsgiMiddleware, SentryWsgiMiddleware, (), lambda: sentry_sdk.flush(60))


def posthog(url: str) -> Tracked:
    """Return posthog's middleware for Django, and an event; posthog has no integration of other frameworks."""
    from posthog import Posthog  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415

    client = Posthog("key", host=url)

    def endpoint(view: Any) -> Any:
        def report(*args: Any, **kwargs: Any) -> Any:
            client.capture("feature_used", distinct_id=USER)
            return view(*args, **kwargs)

        return report

    middleware = ("posthog.integrations.django.PosthogContextMiddleware",)
    return Tracked(endpoint, BARE.application, BARE.flask, middleware, client.flush)


STACKS: dict[str, Callable[[Tracked], Callable[[int], None]]] = {
    "Starlette": starlette,
    "FastAPI": fastapi,
    "Flask": flask,
    "Django": django,
}
CONTENDERS = {"ts_autotrack": ts_autotrack, "opentelemetry": opentelemetry, "sentry": sentry, "posthog": posthog}
COMPARED = {
    "ts_autotrack": tuple(STACKS),
    "opentelemetry": ("Starlette", "FastAPI", "Flask", "Django"),
    "sentry": ("Starlette", "FastAPI", "Flask"),
    "posthog": ("Django",),
}
"""Frameworks that each contender is measured with."""
PACKAGES = {
    *("starlette", "fastapi", "flask", "django", "sentry-sdk", "opentelemetry-exporter-otlp-proto-http"),
    *(f"opentelemetry-instrumentation-{name}" for name in ("asgi", "wsgi", "django")),
}
"""Packages of the frameworks and contenders for pip to install."""


def measure(stack: str, contender: str, url: str, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds of a request of the bare application, and the microseconds added, for each round."""
    logging.disable()  # the contenders' log output would be measured, too
    bare, started = STACKS[stack](BARE), CONTENDERS[contender](url)
    tracked = STACKS[stack](started)
    found: dict[str, list[float]] = {"bare": [], "added": []}
    for number in range(rounds + 1):
        gc.collect()
        best = {"bare": float("inf"), "tracked": float("inf")}
        for _ in range(REPEATS):
            for name, serve in (("bare", bare), ("tracked", tracked)):
                began = time.perf_counter_ns()
                serve(REQUESTS)
                best[name] = min(best[name], (time.perf_counter_ns() - began) / REQUESTS / 1e3)
                started.finish()
        if number:  # the first round warms up
            found["bare"].append(best["bare"])
            found["added"].append(best["tracked"] - best["bare"])
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the contenders' threads
