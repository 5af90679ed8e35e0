"""The real `opentelemetry-instrument` in child processes: scripts, workers, declarative files, broken settings."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "opentelemetry"
FEATURES = "GET /reports/{number}=report_view"
GUNICORN = "gunicorn -w 2 -k uvicorn.workers.UvicornWorker -b 127.0.0.1:{port} --log-level warning app:app"
UVICORN = "uvicorn --workers 2 --port {port} --log-level warning app:app"
EXPECTED = {(f"user_{number}", f"account_{number % 10}") for number in range(20)}

pytestmark = pytest.mark.slow


def environment(output: Path, **variables: str) -> dict[str, str]:
    """Return the variables of a program whose events go to a file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TS_", "THRIVESTACK", "OTEL"))}
    quiet = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    ours = {"TS_AUTOTRACK_EXPORTER": "jsonl", "TS_AUTOTRACK_JSONL_PATH": str(output)}
    return {**kept, **quiet, **ours, **variables}


def command(line: str) -> list[str]:
    """Return a command line that runs a program of this interpreter under `opentelemetry-instrument`."""
    scripts = Path(sys.executable).parent
    program, *arguments = line.split()
    return [str(scripts / "opentelemetry-instrument"), str(scripts / program), *arguments]


def items(output: Path) -> list[dict[str, Any]]:
    """Return the events of a program."""
    return [json.loads(line)["item"] for line in output.read_text().splitlines()] if output.exists() else []


def run(code: str, output: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script under `opentelemetry-instrument`."""
    script = output.with_name("script.py")
    script.write_text(code)
    line = [*command(Path(sys.executable).name), str(script)]
    return subprocess.run(
        line, env=environment(output, **variables), capture_output=True, text=True, timeout=120, check=False
    )


@contextmanager
def serving(line: str, output: Path, **variables: str) -> Iterator[httpx.Client]:
    """Run the example under `opentelemetry-instrument`; yield a client. The server ends by SIGTERM, with its events."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = output.with_name("log").open("w")
    process = subprocess.Popen(
        command(line.format(port=port)), env=environment(output, **variables), cwd=EXAMPLE, stdout=log, stderr=log
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until(lambda: is_up(client), "the server answers", 60)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            log.close()


def is_up(client: httpx.Client) -> bool:
    """Return True if the server answers."""
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def use(client: httpx.Client) -> None:
    """Look at reports, one of them absent, and send invitations."""
    for number in range(20):
        assert client.get(f"/reports/{number}").is_success
        assert client.post(f"/invitations/{number}").is_success
    assert client.get("/reports/404").status_code == 404


def seen(output: Path, name: str) -> list[tuple[str, str]]:
    """Return user and account of the arrived events of a name."""
    return [(item["user_id"], item["context"]["group_id"]) for item in items(output) if item["event_name"] == name]


@pytest.mark.parametrize(
    ("line", "exporters"), [(GUNICORN, "thrivestack"), (UVICORN, "none"), (UVICORN, "console,thrivestack")]
)
def test_workers_count_their_requests(line: str, exporters: str, tmp_path: Path) -> None:
    """Each successful request of a route with a feature makes one event, in all workers, with and without exporter."""
    output = tmp_path / "events"
    with serving(line, output, TS_AUTOTRACK_OTEL_FEATURES=FEATURES, OTEL_TRACES_EXPORTER=exporters) as client:
        use(client)
    users = seen(output, "feature_used")
    assert len(users) == 20
    assert set(users) == EXPECTED
    assert {json.dumps(item["properties"]) for item in items(output)} == {
        '{"feature_name": "report_view", "action": "GET /reports/{number}"}'
    }


def test_log_events_arrive(tmp_path: Path) -> None:
    """Log events of the workers become events, with allowed attributes only."""
    output = tmp_path / "events"
    with serving(UVICORN, output, OTEL_LOGS_EXPORTER="thrivestack", TS_AUTOTRACK_OTEL_PROPERTIES="role") as client:
        use(client)
    users = seen(output, "invite_sent")
    assert len(users) == 20
    assert set(users) == EXPECTED
    assert all(item["properties"] == {"role": "admin"} for item in items(output))


def test_a_declarative_file_configures_both(tmp_path: Path) -> None:
    """The exporters of a declarative file take their options from the file."""
    output = tmp_path / "events"
    with serving(UVICORN, output, OTEL_CONFIG_FILE=str(EXAMPLE / "otel.yaml")) as client:
        use(client)
    assert set(seen(output, "feature_used")) == set(seen(output, "invite_sent")) == EXPECTED
    assert len(items(output)) == 40


SPAN = """
import threading
from opentelemetry import trace
from ts_autotrack import user_context
tracer = trace.get_tracer("tests")
def work():
    tracer.start_span("export", attributes={"feature.name": "export"}).end()
with user_context("user_1"):
    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print("done")
"""


def test_a_script_has_its_users_from_the_first_span_on(tmp_path: Path) -> None:
    """The exporter by name is complete at once: the first span has the acting user; the integration reaches threads."""
    output = tmp_path / "events"
    done = run(SPAN, output, OTEL_TRACES_EXPORTER="thrivestack", TS_AUTOTRACK_INTEGRATIONS="threads")
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)
    assert [item["user_id"] for item in items(output)] == ["user_1", "user_1"]


def test_without_the_instrumentor_the_first_batch_completes(tmp_path: Path) -> None:
    """With our instrumentor disabled, the exporter still counts spans whose attributes name the user."""
    output = tmp_path / "events"
    code = SPAN.replace('"export"}', '"export", "user.id": "user_2"}')
    variables = {"OTEL_TRACES_EXPORTER": "thrivestack", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "ts_autotrack"}
    assert run(code, output, **variables).stdout == "done\n"
    assert [item["user_id"] for item in items(output)] == ["user_2", "user_2"]


def test_broken_settings_are_one_warning_each(tmp_path: Path) -> None:
    """The application runs, and so does the rest of the auto-instrumentation; each broken setting is one line."""
    output = tmp_path / "events"
    broken = {
        "OTEL_TRACES_EXPORTER": "thrivestack",
        "OTEL_LOGS_EXPORTER": "thrivestack",
        "TS_AUTOTRACK_OTEL_FEATURES": "report_view",
        "TS_AUTOTRACK_OTEL_ERRORS": "perhaps",
        "TS_AUTOTRACK_INTEGRATIONS": "thread",
        "TS_AUTOTRACK_BAGGAGE": "perhaps",
    }
    done = run(SPAN, output, **broken)
    assert (done.stdout, done.returncode) == ("done\n", 0)
    lines = done.stderr.splitlines()
    for variable in list(broken)[2:]:
        assert sum(variable in line for line in lines) == 1, done.stderr
    assert len(lines) == 5, done.stderr  # and the span of the thread has no user
    assert len(items(output)) == 1


def test_a_disabled_sdk_is_no_obstacle(tmp_path: Path) -> None:
    """With OTEL_SDK_DISABLED the application runs, without events of spans and without messages."""
    output = tmp_path / "events"
    done = run(SPAN, output, OTEL_TRACES_EXPORTER="thrivestack", OTEL_SDK_DISABLED="true")
    assert (done.stdout, done.returncode) == ("done\n", 0)
    assert items(output) == []
