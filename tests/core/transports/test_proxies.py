"""Proxies and certificates from the environment."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import certifi
import pytest

from tests.conftest import ScriptedServer, wait_until
from tests.core.conftest import account_closes, names
from ts_autotrack import configure, flush, stats, track
from ts_autotrack._core.transports.proxies import NetworkSettingError, proxy_for, tls_context

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("acting", "no_proxies")

PROXY = "http://proxy.example.com:3128"


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the proxy and certificate variables of the machine."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("no_proxy", "endpoint", "excluded"),
    [
        ("", "https://api.example.com/api", False),
        ("*", "https://api.example.com/api", True),
        ("other.com, *", "https://api.example.com/api", True),
        ("example.com", "https://api.example.com/api", True),
        (".example.com", "https://api.example.com/api", True),
        ("*.example.com", "https://API.example.com/api", True),
        ("other.com api.example.com", "https://api.example.com/api", True),
        ("https://api.example.com", "https://api.example.com/api", True),
        ("ample.com", "https://api.example.com/api", False),
        ("api.example.com:443", "https://api.example.com/api", True),
        ("api.example.com:443", "https://api.example.com:8443/api", False),
        ("api.example.com:8443", "https://api.example.com:8443/api", True),
        ("10.0.0.0/8", "https://10.1.2.3/api", True),
        ("10.0.0.0/8", "https://11.1.2.3/api", False),
        ("10.1.2.3", "https://10.1.2.3/api", True),
        ("10.1.2.3:443", "https://10.1.2.3/api", True),
        ("fd07:b51a:cc66:f0::/64", "https://[fd07:b51a:cc66:f0::7]/api", True),
        ("fd07:b51a:cc66:f0::/64", "https://[fd07:b51a:cc66:f1::7]/api", False),
        ("fd07::7", "https://[fd07:0::7]:8443/api", True),
        ("[fd07::7]", "https://[fd07::7]/api", True),
        ("[fd07::7]:8443", "https://[fd07::7]/api", False),
        ("::1,[::1],,/,:,.,10.0.0.0/99", "https://api.example.com/api", False),
    ],
)
def test_hosts_of_no_proxy(monkeypatch: pytest.MonkeyPatch, no_proxy: str, endpoint: str, excluded: bool) -> None:  # noqa: FBT001 - a column
    """NO_PROXY excludes all hosts, domains, hosts with a port, addresses and networks, IPv6 ones included."""
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(endpoint) is None) is excluded


@pytest.mark.parametrize("host", ["127.0.0.1:8787", "localhost:8787", "[::1]:8787", "127.1.2.3"])
def test_loopback_endpoint_has_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """An endpoint on this machine is reached without a proxy, for any proxy variable."""
    monkeypatch.setenv("ALL_PROXY", "socks://proxy.example.com:1080")
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    assert proxy_for(f"http://{host}/api") is None


def test_variable_of_the_scheme_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the endpoint's scheme comes before ALL_PROXY; a proxy without a scheme speaks HTTP."""
    monkeypatch.setenv("ALL_PROXY", "http://all.example.com:1")
    monkeypatch.setenv("HTTPS_PROXY", "user:pass@proxy.example.com:3128")
    proxy, other = proxy_for("https://api.example.com"), proxy_for("http://api.example.com")
    assert proxy is not None
    assert proxy.url == "http://user:pass@proxy.example.com:3128"
    assert proxy.shown == "HTTPS_PROXY=http://***@proxy.example.com:3128"
    assert other is not None
    assert other.shown == "ALL_PROXY=http://all.example.com:1"


def test_events_pass_a_proxy(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment gets the request with the endpoint's full address."""
    monkeypatch.setenv("HTTP_PROXY", server.endpoint)
    configure(endpoint="http://collector.example.com/api")
    track("e")
    assert flush(10)
    assert server.requests[0].path == "http://collector.example.com/api/track"


def test_unreachable_proxy_is_named(
    dead_endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed request names the proxy's variable, without the proxy's credentials."""
    monkeypatch.setenv("HTTPS_PROXY", dead_endpoint.replace("//", "//user:pass@"))
    configure(endpoint="https://api.example.com", api_key="test")
    track("e")
    shown = dead_endpoint.replace("//", "//***@")
    wait_until(lambda: f"(through HTTPS_PROXY={shown})" in caplog.text, "the warning")
    assert "pass" not in caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HTTPS_PROXY", "nonsense://user:pass@proxy", "HTTPS_PROXY=nonsense://***@proxy cannot be used: the scheme"),
        ("ALL_PROXY", "socks://127.0.0.1:1080", "ALL_PROXY=socks://127.0.0.1:1080 cannot be used: the scheme"),
        ("https_proxy", "http://proxy:port", "https_proxy=http://proxy:port cannot be used: "),
        (
            "https_proxy",
            "http://user:pass/word@proxy:1",
            "https_proxy=http://***@proxy:1 cannot be used: write",
        ),
        ("SSL_CERT_FILE", "/missing/ca.pem", "SSL_CERT_FILE=/missing/ca.pem cannot be used: No such file"),
        ("SSL_CERT_FILE", os.devnull, f"SSL_CERT_FILE={os.devnull} cannot be used: "),
        ("SSL_CERT_DIR", "/missing/certs", "SSL_CERT_DIR=/missing/certs cannot be used: there is no such directory"),
    ],
)
def test_unusable_setting_is_named_once_and_events_wait(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    words: str,
) -> None:
    """One warning names the variable and its value without credentials; attempts back off and leave nothing behind."""
    filters = len(logging.getLogger("httpx").filters)
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        configure(endpoint="https://api.example.com")
        track("e")
        wait_until(lambda: words in caplog.text, "the warning")
        for _ in range(5):
            assert not flush(0.05)
        assert stats().pending == 1
        assert len(logging.getLogger("httpx").filters) <= filters + 1
        assert caplog.text.count("cannot be used") == 1
        assert "pass" not in caplog.text
    configure(endpoint=server.endpoint)
    assert flush(10)
    assert names(server.items) == ["e"]
    account_closes()


def test_mended_file_is_used_at_the_next_attempt(
    dead_endpoint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A certificate file that appears later is used without a restart."""
    caplog.set_level("DEBUG")
    file = tmp_path / "ca.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    configure(endpoint=dead_endpoint.replace("http:", "https:"), api_key="test")
    track("e")
    wait_until(lambda: f"SSL_CERT_FILE={file} cannot be used" in caplog.text, "the warning")
    file.symlink_to(certifi.where())
    assert not flush(0.2)
    wait_until(lambda: "Connection refused" in caplog.text, "an attempt to connect")


def test_certificates_of_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SSL_CERT_DIR names a directory of certificates; SSL_CERT_FILE wins over it, as in httpx."""
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert tls_context().cert_store_stats()["x509_ca"] == 0
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert tls_context().cert_store_stats()["x509_ca"] > 50
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    with pytest.raises(NetworkSettingError, match="SSL_CERT_FILE="):
        tls_context()
