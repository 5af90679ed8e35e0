"""The exporter otlp in operation: certificates, outages, a large number of events, and a real Collector."""

from __future__ import annotations

import re
import ssl
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from tests.conftest import Answer, run_python, wait_until
from tests.core.conftest import account_closes, names
from tests.core.transports.collector import Collector, attributes_of, failure
from ts_autotrack import configure, flush, shutdown, stats, track
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
from ts_autotrack.typing import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[3] / "examples" / "opentelemetry"

pytestmark = pytest.mark.usefixtures("acting")


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """An authority of its own; its certificate is in `authority.pem`."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    return made


@pytest.fixture
def secured(authority: trustme.CA, no_otel_variables: None) -> Iterator[Collector]:
    """A Collector that speaks TLS and asks for a client certificate."""
    del no_otel_variables
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    receiver = Collector(context)
    yield receiver
    shutdown(0.5)
    receiver.close()


def test_certificates_of_both_sides(
    secured: Collector, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_EXPORTER_OTLP_CERTIFICATE, CLIENT_CERTIFICATE and CLIENT_KEY are in force; without them, events wait."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", secured.endpoint)
    configure(exporter="otlp")
    track("e")
    assert not flush(0.5)
    own = authority.issue_cert("client.example.com")
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", str(tmp_path / "client.pem"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", str(tmp_path / "client.key"))
    configure(exporter="otlp")
    assert flush(10)
    assert names(secured.items) == ["e"]


def test_example_sends_what_its_readme_shows(collector: Collector) -> None:
    """The example's events have the attributes that its README shows."""
    example = EXAMPLES / "through_a_collector.py"
    variables = {"TS_AUTOTRACK_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    done = run_python(example.read_text(), **variables)
    assert done.stdout == "settled: True, delivered: 2\n", done.stderr
    shown = re.findall(r"-> (\S+): Str\((.*)\)", (EXAMPLES / "README.md").read_text())
    attributes = attributes_of(collector.records[0])
    assert [(name, value) for name, value in shown if name not in ("service.name", "context.event_id")] == [
        (name, value) for name, value in attributes.items() if name != "context.event_id"
    ]


OUTAGE = """
import os, signal
import ts_autotrack
for n in range(10): ts_autotrack.track("e", {"n": n}, user_id="u", group_id="g")
ts_autotrack.flush(0.2)
os.kill(os.getpid(), signal.SIGKILL)
"""
SUCCESSOR = """
import time
import ts_autotrack
ts_autotrack.track("successor", user_id="u")
deadline = time.monotonic() + 20
while ts_autotrack.stats().delivered < 11 and time.monotonic() < deadline: time.sleep(0.01)
"""


@pytest.mark.slow
def test_outbox_keeps_events_of_a_dead_collector(collector: Collector, tmp_path: Path) -> None:
    """Events of a process killed while the Collector was down arrive through the next process, each once."""
    variables = {"TS_AUTOTRACK_EXPORTER": "otlp", "TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox")}
    run_python(OUTAGE, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", TS_AUTOTRACK_DURABILITY="event", **variables)
    done = run_python(SUCCESSOR, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **variables)
    assert done.returncode == 0, done.stderr
    assert sorted(item["properties"].get("n", 10) for item in collector.items) == list(range(11))


@pytest.mark.slow
def test_account_of_many_events_closes(collector: Collector) -> None:
    """100,000 events arrive, each once and in order, through a Collector that fails now and then."""
    client.pacing = Pacing(first_backoff=0.01)
    answers = iter(range(1_000_000))
    collector.always = lambda _: failure(503, "busy") if next(answers) % 7 == 3 else Answer(200, b"")
    for n in range(100_000):
        track("e", {"n": n})
    assert flush(120)
    assert account_closes() == Stats(100_000, 100_000, 0, 0, {})
    accepted = [request.items for index, request in enumerate(collector.requests) if index % 7 != 3]
    assert [item["properties"]["n"] for items in accepted for item in items] == list(range(100_000))


def rotel_agent() -> Path:
    """Return the program of rotel, a Collector."""
    rotel = pytest.importorskip("rotel", reason="rotel has no wheel for this platform")
    agent = Path(rotel.__file__).parent / "rotel-agent"
    version = subprocess.run([agent, "--version"], capture_output=True, check=False)
    if version.returncode:
        pytest.skip(f"rotel does not run on this platform: {version.stderr.decode()[:200]}")
    return agent


def free_ports() -> tuple[int, int]:
    """Return two ports without a listener."""
    found = []
    for _ in range(2):
        receiver = Collector()
        found.append(int(receiver.endpoint.rpartition(":")[2]))
        receiver.close()
    return found[0], found[1]


@pytest.fixture
def rotel(collector: Collector, tmp_path: Path) -> Iterator[str]:
    """URL of a running rotel, which passes everything on to `collector`."""
    http, grpc = free_ports()
    command = [str(rotel_agent()), "start", "--exporter", "otlp", "--otlp-exporter-protocol", "http"]
    command += ["--otlp-exporter-endpoint", collector.endpoint, "--batch-timeout", "100ms"]
    command += ["--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}"]
    url = f"http://127.0.0.1:{http}"
    with (tmp_path / "rotel.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: listens(url) or process.poll() is not None, "rotel's start", 30)
            assert process.poll() is None, (tmp_path / "rotel.log").read_text()
            yield url
        finally:
            process.terminate()


def listens(url: str) -> bool:
    """Return True if a server answers."""
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.slow
def test_real_collector_passes_all_events_on(rotel: str, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events go through a Collector, rotel, and arrive complete: names, ids, values and resource."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", rotel)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing")
    values = {"text": "a\u00e9\n", "none": None, "list": [1, 2.5, [], {}], "big": 2**63, "flag": False}
    for n in range(3_000):
        track("e", {"n": n, **values})
    assert flush(30)
    assert stats().delivered == 3_000
    wait_until(lambda: len(collector.items) >= 3_000, "the Collector's export", 30)
    assert sorted(item["properties"]["n"] for item in collector.items) == list(range(3_000))
    assert all(item["properties"] == {"n": item["properties"]["n"], **values} for item in collector.items)
    assert len({item["context"]["event_id"] for item in collector.items}) == 3_000
    assert {item["user_id"] for item in collector.items} == {"user_1"}
    services = {
        (pair.key, pair.value.string_value)
        for export in collector.exports
        for group in export.resource_logs
        for pair in group.resource.attributes
    }
    assert services == {("service.name", "billing")}
