"""Metrics of the library through the real SDK."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.conftest import Answer, ScriptedServer, run_python, wait_until
from ts_autotrack import bind_user, configure, flush, stats, track
from ts_autotrack._core import observers
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack.otel.metrics import instrument_metrics

QUEUE, EXPORTER = "otel.sdk.processor.log", "otel.sdk.exporter"


@pytest.fixture
def reader() -> InMemoryMetricReader:
    """A reader of a provider with the library's metrics."""
    made = InMemoryMetricReader()
    instrument_metrics(MeterProvider([made]))
    return made


def collect(reader: InMemoryMetricReader) -> dict[tuple[str, str | None], Any]:
    """Return the value of each metric by its name and `error.type`; of a histogram, the count."""
    found: dict[tuple[str, str | None], Any] = {}
    data = reader.get_metrics_data()
    for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
        for point in metric.data.data_points:
            attributes = dict(point.attributes or {})
            assert attributes["otel.component.type"] == "ts_autotrack"
            assert attributes["otel.component.name"] == "ts_autotrack/0"
            key = (metric.name, attributes.get("error.type"))
            found[key] = getattr(point, "count", None) or getattr(point, "value", None)  # type: ignore[index]
    return found


def test_a_day_of_the_queue(server: ScriptedServer, reader: InMemoryMetricReader) -> None:
    """Queue, request in progress, deliveries, refusals, drops and durations have their present names."""
    configure(max_queue=100)
    client.pacing = Pacing(first_backoff=0.01)
    gate = threading.Event()
    server.script.append(Answer(wait=gate))
    track("nobody")
    bind_user("u")
    track("e")
    wait_until(lambda: server.requests, "the request")
    track("e")
    track("e", {"poison": 1})
    wait_until(lambda: stats().dropped, "the event without a user")
    now = collect(reader)
    assert now[f"{QUEUE}.queue.size", None] == 2
    assert now[f"{QUEUE}.queue.capacity", None] == 100
    assert now[f"{QUEUE}.processed", "unattributed"] == 1
    assert now[f"{QUEUE}.processed", None] == 0
    assert now[f"{EXPORTER}.log.inflight", None] == 1
    assert now[f"{EXPORTER}.log.exported", None] == 0
    assert (f"{EXPORTER}.operation.duration", None) not in now
    server.script.append(Answer(503))
    server.always = lambda request: Answer(400 if "poison" in str(request.items) else 200)
    gate.set()
    assert flush(10)
    wait_until(lambda: stats().in_flight == 0, "the end of the request")
    later = collect(reader)
    assert later == {
        (f"{QUEUE}.queue.size", None): 0,
        (f"{QUEUE}.queue.capacity", None): 100,
        (f"{QUEUE}.processed", "unattributed"): 1,
        (f"{QUEUE}.processed", None): 3,
        (f"{EXPORTER}.log.inflight", None): 0,
        (f"{EXPORTER}.log.exported", None): 2,
        (f"{EXPORTER}.log.exported", "rejected"): 1,
        (f"{EXPORTER}.operation.duration", None): 2,
        (f"{EXPORTER}.operation.duration", "503"): 1,
        (f"{EXPORTER}.operation.duration", "400"): 2,
    }


def test_names_are_those_of_the_semantic_conventions(reader: InMemoryMetricReader) -> None:
    """Names, units and kinds of the metrics are those that OpenTelemetry's own SDK uses."""
    conventions = pytest.importorskip("opentelemetry.semconv._incubating.metrics.otel_metrics")
    if not hasattr(conventions, "OTEL_SDK_EXPORTER_LOG_EXPORTED"):
        pytest.skip("these conventions are older")
    own = {value for name, value in vars(conventions).items() if name.startswith("OTEL_SDK_")}
    names = {name for name, _ in collect(reader)} | {f"{EXPORTER}.operation.duration"}
    assert len(names) == 5 + 1
    assert names <= own


def test_instrumenting_again_changes_nothing(server: ScriptedServer) -> None:
    """A second call with the same provider doubles no value; another provider has metrics of its own."""
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    providers = [MeterProvider([each]) for each in readers]
    for provider in (*providers, *providers):
        instrument_metrics(provider)
    track("e", user_id="u")
    assert flush(10)
    assert len(server.requests) == 1
    assert [collect(each)[f"{EXPORTER}.operation.duration", None] for each in readers] == [1, 1]


def test_nothing_is_done_without_metrics() -> None:
    """With a no-op provider no observer is registered."""
    before = observers.observers
    instrument_metrics(NoOpMeterProvider())
    assert observers.observers is before


def test_provider_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A broken provider raises nothing into the application's start."""

    class Provider:
        def get_meter(self, *args: Any) -> Any:
            raise ZeroDivisionError(args)

    instrument_metrics(Provider())  # type: ignore[arg-type]
    assert "the meter provider raised ZeroDivisionError" in caplog.text


def test_provider_may_come_later(server: ScriptedServer) -> None:
    """A provider that the application sets later reports the metrics, once."""
    code = """
import ts_autotrack
from opentelemetry import metrics
from ts_autotrack.otel.metrics import instrument_metrics
instrument_metrics()
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
instrument_metrics()
instrument_metrics(metrics.get_meter_provider())
ts_autotrack.track("e", user_id="u"); ts_autotrack.flush(10)
(scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
(duration,) = [metric for metric in scope.metrics if metric.name.endswith("duration")]
print(scope.scope.name, len(scope.metrics), [point.count for point in duration.data.data_points])
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=server.endpoint)
    assert done.stdout == "ts_autotrack 6 [1]\n", done.stderr
    assert done.stderr == ""


FORKS = """
import os
import ts_autotrack
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from ts_autotrack.otel.metrics import instrument_metrics
reader = InMemoryMetricReader()
instrument_metrics(MeterProvider([reader]))
def events(count):
    for _ in range(count): ts_autotrack.track("e", user_id="u")
    ts_autotrack.flush(10)
    metrics = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    (exported,) = [metric for metric in metrics if metric.name == "otel.sdk.exporter.log.exported"]
    print(sum(point.value for point in exported.data.data_points), flush=True)
events(3)
for count in (1, 2):
    if not (child := os.fork()):
        events(count)
        os._exit(0)
    os.waitpid(child, 0)
events(1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_each_process_reports_its_own(server: ScriptedServer) -> None:
    """Forked workers report their own events, not the events that their parent had delivered."""
    done = run_python(FORKS, THRIVESTACK_ENDPOINT=server.endpoint)
    assert done.stdout == "3\n1\n2\n4\n", done.stderr


def test_example_prints_what_its_readme_shows() -> None:
    """The example prints the metrics that its README shows. The two events may leave in one request or in two."""
    folder = Path(__file__).parents[2] / "examples" / "opentelemetry"
    done = run_python((folder / "own_metrics.py").read_text(), TS_AUTOTRACK_EXPORTER="console")
    shown = (folder / "README.md").read_text().partition("own_metrics.py\n")[2].partition("```")[0]
    assert dict.fromkeys(done.stdout.splitlines()) == dict.fromkeys(shown.splitlines()), done.stderr
