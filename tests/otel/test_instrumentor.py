"""The instrumentor in process: features, integrations, idempotence, and nothing that raises."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.conftest import run_python
from ts_autotrack import current_user, user_context
from ts_autotrack.integrations import _by_name
from ts_autotrack.otel.instrumentor import ThriveStackInstrumentor
from ts_autotrack.otel.spans import ThriveStackSpanExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.otel.conftest import Events


@pytest.fixture
def instrumentor() -> Iterator[Any]:
    """Return the instrumentor; undone at the end."""
    made: Any = ThriveStackInstrumentor()
    yield made
    if made.is_instrumented_by_opentelemetry:
        made.uninstrument()


def user_of_a_thread() -> str | None:
    """Return the user in a thread that is started in a block."""
    found: list[str | None] = []
    with user_context("user_1"):
        thread = threading.Thread(target=lambda: found.append(current_user().user_id))
        thread.start()
        thread.join()
    return found[0]


def test_integrations_are_activated(instrumentor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named integration works after `instrument()`, also after a second one, and no more after `uninstrument()`."""
    monkeypatch.setenv("TS_AUTOTRACK_INTEGRATIONS", "threads")
    instrumentor.instrument()
    instrumentor.instrument()
    assert user_of_a_thread() == "user_1"
    instrumentor.uninstrument()
    assert user_of_a_thread() is None


def test_features_are_counted(
    instrumentor: Any, global_provider: TracerProvider, events: Callable[[], Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans named in the setting make events without any exporter, between `instrument()` and `uninstrument()`."""
    monkeypatch.setenv("TS_AUTOTRACK_OTEL_FEATURES", "export-report=report_export")
    tracer = global_provider.get_tracer("tests")
    with user_context("user_1"):
        instrumentor.instrument()
        tracer.start_span("export-report").end()
        instrumentor.uninstrument()
        tracer.start_span("export-report").end()
        assert [event["properties"]["feature_name"] for event in events()] == ["report_export"]
        instrumentor.instrument()
        tracer.start_span("export-report").end()
    assert len(events()) == 2


def test_features_count_beside_an_exporter(
    instrumentor: Any, global_provider: TracerProvider, events: Callable[[], Events]
) -> None:
    """Features given to `instrument()` count, too, beside an exporter with other options; no span twice."""
    global_provider.add_span_processor(BatchSpanProcessor(ThriveStackSpanExporter(features={"import": "import"})))
    instrumentor.instrument(features={"export": "export"})
    with user_context("user_1"):
        for attributes in ({}, {"feature.name": "both"}):
            for name in ("export", "import"):
                global_provider.get_tracer("tests").start_span(name, attributes=attributes).end()
    global_provider.force_flush()
    assert [event["properties"]["feature_name"] for event in events()] == ["export", "import", "both", "both"]


def test_a_provider_need_not_be_hashable(
    instrumentor: Any, events: Callable[[], Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans of a provider that cannot be hashed, such as Logfire's, make events, with and without an exporter."""
    provider = Unhashable(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    provider.add_span_processor(BatchSpanProcessor(ThriveStackSpanExporter(features={"import": "import"})))
    instrumentor.instrument(features={"export": "export"})
    with user_context("user_1"):
        for name in ("export", "import"):
            provider.get_tracer("tests").start_span(name).end()
    provider.shutdown()
    assert [event["properties"]["feature_name"] for event in events()] == ["export", "import"]


class Unhashable(TracerProvider):
    """A provider that cannot be a key of a dict, such as a dataclass."""

    __hash__ = None  # type: ignore[assignment]  # its purpose


def test_a_missing_provider_is_a_warning() -> None:
    """Features without a tracer provider would never count: one warning names the order of the calls."""
    code = """
from ts_autotrack.otel.instrumentor import ThriveStackInstrumentor
ThriveStackInstrumentor().instrument()
ThriveStackInstrumentor().uninstrument()
ThriveStackInstrumentor().instrument(features={"export": "export"})
"""
    (line,) = run_python(code, TS_AUTOTRACK_EXPORTER="none").stderr.splitlines()
    assert "no tracer provider is set. Call set_tracer_provider() of opentelemetry.trace before" in line


def test_nothing_named_changes_nothing(instrumentor: Any, global_provider: TracerProvider) -> None:
    """Without settings and exporters the provider keeps its processors."""
    before = global_provider._active_span_processor._span_processors
    instrumentor.instrument()
    assert global_provider._active_span_processor._span_processors == before
    assert user_of_a_thread() is None


def test_mistakes_are_warnings(
    instrumentor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Unknown names and unknown options are a warning each; the rest works."""
    monkeypatch.setenv("TS_AUTOTRACK_INTEGRATIONS", "thread, threads")
    instrumentor.instrument(colour="red")
    assert user_of_a_thread() == "user_1"
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "TS_AUTOTRACK_INTEGRATIONS: there is no integration 'thread': did you mean 'threads'?" in texts[1]


def test_mistakes_of_the_argument_are_warnings(instrumentor: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Integrations given to `instrument()` that are unknown, or need the application, are a warning each."""
    instrumentor.instrument(integrations=["thread", "flask", "threads"])
    assert user_of_a_thread() == "user_1"
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "'thread' is not activated: there is no such integration: did you mean 'threads'?" in texts[0]
    assert "'flask' is not activated: this integration needs the application's own object" in texts[1]


@pytest.mark.parametrize("first", ["launcher", "instrumentor"])
def test_features_without_code_are_activated_once(first: str) -> None:
    """Functions in the settings are tracked by the instrumentor, the launcher, or both in either order, once."""
    launcher, instrumentor = "import ts_autotrack.auto\n", "ThriveStackInstrumentor().instrument()\n"
    code = f"""
import sys
from ts_autotrack.otel.instrumentor import ThriveStackInstrumentor
{launcher + instrumentor if first == "launcher" else instrumentor + launcher}
import textwrap
from ts_autotrack import user_context
with user_context("user_1"):
    textwrap.dedent("")
print([type(finder).__name__ for finder in sys.meta_path].count("ImportHooks"))
ThriveStackInstrumentor().uninstrument()
print([type(finder).__name__ for finder in sys.meta_path].count("ImportHooks"))
"""
    features = {"TS_AUTOTRACK_FEATURES": "textwrap:dedent=text", "TS_AUTOTRACK_INTEGRATIONS": "off"}
    done = run_python(code, TS_AUTOTRACK_EXPORTER="console", **features)
    assert done.stdout == "1\n1\n", "the launcher's activation stays"
    assert done.stderr.count('"feature_name": "text"') == 1


FRAMEWORKS = """
import sys
from ts_autotrack.otel.instrumentor import ThriveStackInstrumentor
ThriveStackInstrumentor().instrument()
import celery.app, click, flask, starlette.applications
from ts_autotrack.integrations import _automatic
print(sorted(_automatic._active))
import ts_autotrack.auto
print({"celery", "click", "flask", "starlette"} <= set(_automatic._active), "threads" in _automatic._active)
ThriveStackInstrumentor().uninstrument()
print({"celery", "click", "flask", "starlette"} <= set(_automatic._active))
"""


@pytest.mark.parametrize(
    ("variables", "active"),
    [
        ({}, []),
        ({"TS_AUTOTRACK_FEATURES": "textwrap:dedent=text"}, []),
        ({"TS_AUTOTRACK_FEATURES": "GET /reports/{id}=report_view"}, ["flask", "starlette"]),
        ({"TS_AUTOTRACK_FEATURES": "myapp.tasks.export=report_export"}, ["celery", "click"]),
        ({"TS_AUTOTRACK_FEATURES": "* /reports=report_view", "TS_AUTOTRACK_INTEGRATIONS": "off"}, []),
    ],
)
def test_frameworks_are_tracked_if_the_settings_need_them(variables: dict[str, str], active: list[str]) -> None:
    """The instrumentor alone activates integrations that a feature needs; the launcher adds all others and keeps them.

    `off` is for both.
    """
    done = run_python(FRAMEWORKS, TS_AUTOTRACK_EXPORTER="console", **variables)
    launched = "False False\nFalse" if "TS_AUTOTRACK_INTEGRATIONS" in variables else "True False\nTrue"
    assert done.stdout == f"{active}\n{launched}\n", done.stderr
    assert not done.stderr


def test_named_frameworks_are_tracked_beside_needed_ones() -> None:
    """A name in TS_AUTOTRACK_INTEGRATIONS is a framework more for the instrumentor."""
    variables = {"TS_AUTOTRACK_FEATURES": "GET /reports=report_view", "TS_AUTOTRACK_INTEGRATIONS": "celery"}
    done = run_python(FRAMEWORKS.partition("import ts_autotrack.auto")[0], TS_AUTOTRACK_EXPORTER="console", **variables)
    assert done.stdout == "['celery', 'flask', 'starlette']\n", done.stderr


def test_a_broken_integration_is_a_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """An integration that cannot be imported is a warning with the reason."""
    monkeypatch.setitem(__import__("sys").modules, "ts_autotrack.integrations.flask", None)
    assert _by_name.activate(["flask"]) == []
    assert "'flask' is not activated: ModuleNotFoundError" in caplog.text
