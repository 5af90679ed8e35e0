"""Measure the time that tracking adds to publishing a task of Celery and to running one, in process.

    python -m tests.benchmarks._tasks CONTENDER URL ROUNDS     prints a JSON object with a list for each figure

Bare and tracked batches take turns; signals connect and disconnect in between. Publishing goes to a broker in memory,
and running is a call of Celery's tracer, as in a worker. ts_autotrack writes user and account into each message, and
each run leaves one event of a feature by configuration; the contenders make spans. Events are delivered between the
measured batches. A figure is the best of a few batches, because a shared machine only adds time.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks._contenders import FEATURE, GROUP, USER

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS, REPEATS = 20, 50
"""Tasks of a batch, and batches of a round."""
NAME = "benchmark.export"


class Tracked(NamedTuple):
    """A contender, not started.

    Attributes:
        start: Instruments Celery.
        stop: Undoes this.
        finish: Returns when all events so far have been delivered.
    """

    start: Callable[[], object]
    stop: Callable[[], object]
    finish: Callable[[], object]


def ts_autotrack(url: str) -> Tracked:
    """Return ts_autotrack: the integration, with a feature by the task's name."""
    from ts_autotrack import configure, flush  # noqa: PLC0415
    from ts_autotrack.integrations.celery import instrument_celery, uninstrument_celery  # noqa: PLC0415

    configure(endpoint=url, api_key="k")
    return Tracked(lambda: instrument_celery(features={NAME: FEATURE}), uninstrument_celery, lambda: flush(60))


def opentelemetry(url: str) -> Tracked:
    """Return OpenTelemetry's instrumentation: a span of each publication and of each run."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.instrumentation.celery import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        CeleryInstrumentor,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
    instrumentor = CeleryInstrumentor()
    return Tracked(
        lambda: instrumentor.instrument(tracer_provider=provider),
        instrumentor.uninstrument,
        lambda: provider.force_flush(60_000),
    )


def sentry(url: str) -> Tracked:
    """Return Sentry's integration: a transaction of each run. Its patches stay, and do nothing without a client."""
    import sentry_sdk  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
    from sentry_sdk.integrations.celery import (  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415
        CeleryIntegration,
    )

    sentry_sdk.init(
        f"{url.replace('://', '://key@')}/1",
        traces_sample_rate=1.0,
        default_integrations=False,
        integrations=[CeleryIntegration()],
    )
    scope, client = sentry_sdk.get_global_scope(), sentry_sdk.get_client()
    return Tracked(lambda: scope.set_client(client), lambda: scope.set_client(None), lambda: sentry_sdk.flush(60))


CONTENDERS = {"ts_autotrack": ts_autotrack, "opentelemetry": opentelemetry, "sentry": sentry}
PACKAGES = {"celery", "sentry-sdk", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-instrumentation-celery"}
"""Packages of Celery and the contenders for pip to install."""


class Work:
    """Publishes and runs tasks of an app."""

    def __init__(self) -> None:
        import celery  # noqa: PLC0415

        from ts_autotrack import user_context  # noqa: PLC0415
        from ts_autotrack.integrations._messages import HEADER, Carrier  # noqa: PLC0415

        self._app = celery.Celery("benchmark", broker="memory://", set_as_current=False)
        self._task = self._app.task(name=NAME, shared=False, ignore_result=True)(_export)
        self._app.finalize()
        self._user = user_context(USER, group_id=GROUP)
        with self._user:
            self._request: dict[str, object] = {
                "id": "1",
                "retries": 0,
                "delivery_info": {},
                HEADER: Carrier().header(),
            }
        self.turns: dict[str, Callable[[int], float]] = {"publish": self.publish, "run": self.run}

    def publish(self, tasks: int) -> float:
        """Publish tasks to a broker in memory; return the microseconds of each."""
        with self._user, self._app.producer_or_acquire() as producer:
            publish = self._app.tasks[NAME].apply_async
            began = time.perf_counter_ns()
            for _ in range(tasks):
                publish(producer=producer)
            ended = time.perf_counter_ns()
            producer.channel.queue_purge("celery")
        return (ended - began) / tasks / 1e3

    def run(self, tasks: int) -> float:
        """Run tasks as a worker does, by Celery's tracer; return the microseconds of each."""
        from celery.app import trace  # noqa: PLC0415

        run = trace.build_tracer(NAME, self._app.tasks[NAME], app=self._app)
        requests = [dict(self._request) for _ in range(tasks)]
        began = time.perf_counter_ns()
        for request in requests:
            run("1", (), {}, request)
        return (time.perf_counter_ns() - began) / tasks / 1e3


def _export() -> None: ...


def measure(contender: str, url: str, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds of publishing and running bare, and the microseconds added, for each round."""
    logging.disable()  # the contenders' log output would be measured, too
    tracked, turns = CONTENDERS[contender](url), Work().turns
    found: dict[str, list[float]] = {f"{name} {kind}": [] for name in turns for kind in ("bare", "added")}
    for number in range(rounds + 1):
        gc.collect()
        bare, with_tracking = _best(turns, tracked)
        if number:  # the first round warms up
            for name in turns:
                found[f"{name} bare"].append(bare[name])
                found[f"{name} added"].append(with_tracking[name] - bare[name])
    return found


def _best(turns: dict[str, Callable[[int], float]], tracked: Tracked) -> list[dict[str, float]]:
    """Return the best times of bare and tracked batches."""
    best: list[dict[str, float]] = [dict.fromkeys(turns, float("inf")) for _ in range(2)]
    for _ in range(REPEATS):
        for times, is_tracked in zip(best, (False, True), strict=True):
            if is_tracked:
                tracked.start()
            for name, turn in turns.items():
                times[name] = min(times[name], turn(TASKS))
                tracked.finish()
            if is_tracked:
                tracked.stop()
    return best


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the contenders' threads
