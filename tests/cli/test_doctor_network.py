"""`ts-autotrack doctor` and the network: real servers and proxies on this machine, each with one fault."""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from tests.conftest import Answer, ScriptedServer
from ts_autotrack._core.config import load
from ts_autotrack.cli.doctor.exporter import check_exporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ts_autotrack.cli.doctor.findings import Finding

KEY = "key-of-the-doctor's-tests"


@pytest.fixture(autouse=True)
def no_network_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxies, certificates and a Collector of this machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    """A scripted server."""
    with closing(ScriptedServer()) as server:
        yield server


def examine(endpoint: str, *, send: bool = False, **settings: Any) -> list[Finding]:
    """Return the findings about the way to an endpoint."""
    config = load({"endpoint": endpoint or None, "api_key": KEY, **settings}, "")
    return [finding.safe() for finding in check_exporter(config, send=send)]


def one(findings: list[Finding], check: str) -> Finding:
    """Return the only finding of a check."""
    found = [finding for finding in findings if finding.check == check]
    assert len(found) == 1, findings
    return found[0]


def test_request_without_event(scripted: ScriptedServer) -> None:
    """The default request carries the key and no event; an accepted one is in order, and so is the clock."""
    findings = examine(scripted.endpoint)
    assert {finding.level for finding in findings} == {"ok"}
    assert "requests are accepted" in one(findings, "endpoint").seen
    assert one(findings, "clock").seen.startswith("this machine's clock agrees")
    (request,) = scripted.requests
    assert (request.path, request.items, request.headers["x-api-key"]) == ("/track", [], KEY)


@pytest.mark.parametrize(
    ("answer", "level", "seen", "do"),
    [
        (Answer(400, b'{"message": "no items"}'), "ok", "did not refuse the credentials", "--send"),
        (Answer(401, b'{"message": "bad key"}'), "error", "bad key", "THRIVESTACK_API_KEY"),
        (Answer(403, b"blocked"), "error", "blocked", "firewall"),
        (Answer(404, b"no such page"), "error", "404", "not ThriveStack's. Check THRIVESTACK_ENDPOINT"),
        (
            Answer(302, b"", {"location": "https://a:b@x.test/?q"}),
            "error",
            "a redirect to https://***@x.test/",
            "base URL",
        ),
        (Answer(200, b"<html>Welcome</html>", {"content-type": "text/html"}), "error", "<html>", "login page"),
        (Answer(429, b"slow down"), "warning", "slow down", "wait"),
        (Answer(503, b"maintenance"), "error", "maintenance", "tried again"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
def test_each_answer_is_explained(scripted: ScriptedServer, answer: Answer, level: str, seen: str, do: str) -> None:
    """Each status has a level, the server's words and advice."""
    scripted.script.append(answer)
    finding = one(examine(scripted.endpoint), "endpoint")
    assert finding.level == level
    assert seen in finding.seen
    assert do in finding.do


def test_credentials_are_never_shown(scripted: ScriptedServer) -> None:
    """A server that repeats the key in its answer is quoted without the key."""
    scripted.script.append(Answer(401, f"key {KEY} \x1b[2J".encode()))
    finding = one(examine(scripted.endpoint), "endpoint")
    assert "key *** \\x1b[2J" in finding.seen
    assert KEY not in str(finding)


def test_send(scripted: ScriptedServer) -> None:
    """With --send one event arrives, of a user that says so; a refusal is an error; a library that is off is silent."""
    assert "the event has arrived" in one(examine(scripted.endpoint, send=True), "endpoint").seen
    (item,) = scripted.items
    assert (item["event_name"], item["user_id"]) == ("ts_autotrack_doctor", "ts_autotrack_doctor")
    scripted.script.append(Answer(400, b"no such field"))
    refused = one(examine(scripted.endpoint, send=True), "endpoint")
    assert (refused.level, "no such field" in refused.seen) == ("error", True)
    off = examine(scripted.endpoint, send=True, disabled=True)
    assert any("the library is off" in finding.seen for finding in off)
    assert scripted.requests[-1].items == []


def test_clock(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that differs from the server's by 100 s is a warning with the direction."""
    for offset, way in ((-100, "ahead of"), (100, "behind")):
        date = formatdate(time.time() + offset, usegmt=True)
        monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", lambda *_, date=date: date)
        finding = one(examine(scripted.endpoint), "clock")
        assert finding.level == "warning"
        assert f"s {way} the server's" in finding.seen


def serve_tls(authority: trustme.CA, host: str, days: int) -> ScriptedServer:
    """Return a server whose certificate is for `host` and ends in some days."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    now = datetime.now(timezone.utc)
    end = now + timedelta(days=days, hours=1)
    authority.issue_cert(host, not_before=now - timedelta(days=90), not_after=end).configure_cert(context)
    return ScriptedServer(context)


@pytest.mark.parametrize(
    ("trusted", "host", "days", "level", "seen"),
    [
        (True, "127.0.0.1", 60, "ok", "requests are accepted"),
        (False, "127.0.0.1", 60, "error", "an authority that is not trusted here"),
        (True, "other.test", 60, "error", "for another host"),
        (True, "127.0.0.1", -2, "error", "has expired"),
    ],
    ids=["good", "untrusted", "other host", "expired"],
)
def test_tls(
    trusted: bool,  # noqa: FBT001 - a parameter of the test
    host: str,
    days: int,
    level: str,
    seen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A TLS failure is named in plain words; a good certificate is shown with its end."""
    authority = trustme.CA()
    if trusted:
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with closing(serve_tls(authority, host, days)) as server:
        findings = examine(server.endpoint)
    finding = one(findings, "endpoint")
    assert finding.level == level
    assert seen in finding.seen
    ends = [finding for finding in findings if "the server's certificate" in finding.seen]
    assert len(ends) == (1 if level == "ok" else 0)


def test_certificate_that_ends_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's certificate that ends in three days is a warning."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with closing(serve_tls(authority, "127.0.0.1", 3)) as server:
        findings = examine(server.endpoint)
    assert [finding.seen[-9:] for finding in findings if finding.level == "warning"] == ["in 3 days"]


def test_servers_that_cannot_be_reached(scripted: ScriptedServer, dead_endpoint: str) -> None:
    """No listener, no host, no TLS and no answer have words and advice of their own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for endpoint, words in (
            (dead_endpoint, "nothing listens there"),
            ("http://nowhere.invalid", "the name server does not answer|the host is unknown"),
            (scripted.endpoint.replace("http:", "https:"), "it does not speak TLS"),
            (hanging, "the answer took too long"),
        ):
            finding = one(examine(endpoint, request_timeout=0.3), "endpoint")
            assert (finding.level, bool(finding.do)) == ("error", True)
            assert any(word in finding.seen for word in words.split("|")), finding


def test_proxies(scripted: ScriptedServer, dead_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy in force is named without its password, and so is the reason why another one is not used."""
    remote = "http://api.example.test/api"
    monkeypatch.setenv("HTTP_PROXY", scripted.endpoint.replace("//", "//user:secret@"))
    findings = examine(remote)
    assert one(findings, "endpoint").level == "ok"
    assert "go through HTTP_PROXY=http://***@127.0.0.1" in one(findings, "proxy").seen
    assert scripted.requests[0].path == f"{remote}/track"
    assert "the endpoint is on this machine" in one(examine(scripted.endpoint), "proxy").seen
    monkeypatch.setenv("NO_PROXY", "example.test")
    assert "NO_PROXY=example.test names the host" in one(examine(remote), "proxy").seen
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("HTTP_PROXY", dead_endpoint)
    at_proxy = one(examine(remote), "endpoint")
    assert at_proxy.seen.startswith("no answer from the proxy: nothing listens there")
    monkeypatch.setenv("HTTP_PROXY", "gopher://127.0.0.1")
    assert one(examine(remote), "proxy").level == "error"


def test_certificate_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, a directory without hashed names, and a variable of other clients are named."""
    endpoint = "https://127.0.0.1:9"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/srv/ca.pem")
    assert [f.level for f in examine(endpoint) if f.check == "certificates"] == ["ok", "note"]
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    unhashed = one(examine(endpoint), "certificates")
    assert (unhashed.level, "openssl rehash" in unhashed.do) == ("error", True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    missing = one(examine(endpoint), "certificates")
    assert (missing.level, "missing.pem cannot be used" in missing.seen) == ("error", True)


def test_other_exporters(tmp_path: Path) -> None:
    """A file is checked, and written to with --send only; the console needs nothing."""
    path = tmp_path / "events.jsonl"
    assert {finding.level for finding in examine("", exporter="console")} == {"note"}
    settings: dict[str, Any] = {"exporter": "jsonl", "jsonl_path": path}
    assert examine("", **settings)[-1].seen == f"{path} is writable"
    assert not path.exists()
    assert examine("", send=True, **settings)[-1].level == "ok"
    assert json.loads(path.read_text())["item"]["event_name"] == "ts_autotrack_doctor"
    assert examine("", exporter="jsonl", jsonl_path=tmp_path / "none" / "x")[-1].level == "error"


def test_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Collector gets a request without log records; a missing one is named with its own variable."""

    class Collector(ScriptedServer):
        def decode(self, headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
            """Return no items: the body is protobuf."""
            del body
            assert headers["content-type"] == "application/x-protobuf"
            return []

    with closing(Collector()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        assert one(examine("", exporter="otlp"), "endpoint").level == "ok"
        collector.script.append(Answer(404))
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in one(examine("", exporter="otlp"), "endpoint").do
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost")
    assert one(examine("", exporter="otlp"), "endpoint").level == "error"
