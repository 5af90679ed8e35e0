"""Checks of the way to the server: proxy, certificates, one real request, the server's clock and certificate."""

from __future__ import annotations

import re
import ssl
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ts_autotrack._core.config import environment
from ts_autotrack._core.parsers import host_and_port, is_local
from ts_autotrack._core.redaction import mask_url
from ts_autotrack._core.transports.proxies import NetworkSettingError, proxy_for, tls_context
from ts_autotrack.cli.doctor.answers import answer_finding
from ts_autotrack.cli.doctor.findings import Finding, count, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ts_autotrack._core.config import Config
    from ts_autotrack.cli.doctor.request import Answer

MAX_SKEW = 5.0
"""Seconds between the clocks from which on timestamps are wrong. The `Date` header has whole seconds."""
MIN_DAYS = 14
"""Days before the end of the server's certificate from which on it is worth a warning."""
REQUEST_TIMEOUT = 10.0
"""Seconds for the request, if the setting REQUEST_TIMEOUT allows more."""
MARGIN = 5.0
"""Seconds more for the look-up of the host, which no timeout ends."""

_PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_OTHERS_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.\d+")


def check_network(config: Config, url: str, send: Callable[[float], Answer]) -> list[Finding]:
    """Return the findings about the way to a server, by one request.

    Args:
        config: Settings in force.
        url: URL that requests go to.
        send: Sends a request, within a number of seconds.
    """
    timeout = min(config.server.request_timeout, REQUEST_TIMEOUT)
    found = within(MARGIN, "proxy", partial(proxy_findings, url))
    if url.startswith("https"):
        found += within(MARGIN, "certificates", certificate_findings)
    return found + within(timeout + MARGIN, "endpoint", partial(_request_findings, url, send, timeout))


def proxy_findings(url: str) -> Iterator[Finding]:
    """Yield the proxy in force for a URL, or the reason why a proxy that is set does not count."""
    try:
        proxy = proxy_for(url)
    except NetworkSettingError as error:
        yield Finding("proxy", "error", str(error), "Correct the variable, or add the host to NO_PROXY.")
        return
    given = next((name for name in _PROXY_VARIABLES if environment(name)), "")
    host = host_and_port(url)[0]
    if proxy is not None:
        yield Finding("proxy", "ok", f"requests to {host} go through {proxy.shown}")
    elif not given:
        yield Finding("proxy", "ok", "no proxy is set")
    else:
        shown = f"{given}={mask_url(environment(given))}"
        yield Finding("proxy", "ok", f"{shown} is not used for {host}: {_why_no_proxy(url)}")


def certificate_findings() -> Iterator[Finding]:
    """Yield the source of the certificates that a server's certificate is checked with."""
    try:
        context = tls_context()
    except NetworkSettingError as error:
        yield Finding("certificates", "error", str(error), "Correct the variable, or remove it to use certifi's.")
        return
    file, folder = environment("SSL_CERT_FILE"), environment("SSL_CERT_DIR")
    if folder and not file:
        yield from _folder_findings(folder)
        return
    authorities = count(context.cert_store_stats()["x509_ca"], "authority", "authorities")
    source = f"SSL_CERT_FILE={file}" if file else "the package certifi"
    yield Finding("certificates", "ok", f"{authorities} of {source}")
    if file and folder:
        yield Finding("certificates", "note", f"SSL_CERT_DIR={folder} is ignored: SSL_CERT_FILE is set, too")
    other = next((name for name in _OTHERS_BUNDLES if environment(name)), "")
    if other and not file:
        seen = f"{other}={environment(other)} is a setting of other HTTP clients and is not read"
        yield Finding("certificates", "note", seen, "Set SSL_CERT_FILE to the same file if the server needs it.")


def _folder_findings(folder: str) -> Iterator[Finding]:
    if any(_HASHED_NAME.fullmatch(path.name) for path in Path(folder).iterdir()):
        yield Finding("certificates", "ok", f"the certificates in SSL_CERT_DIR={folder}")
        return
    seen = f"SSL_CERT_DIR={folder} has no file with a hashed name, so OpenSSL finds no certificate there"
    yield Finding("certificates", "error", seen, f"Run openssl rehash {folder}, or set SSL_CERT_FILE to a file.")


def _why_no_proxy(url: str) -> str:
    if is_local(url):
        return "the endpoint is on this machine"
    excluded = environment("no_proxy") or environment("NO_PROXY")
    return f"NO_PROXY={excluded} names the host" if excluded else f"it is no proxy for {url.partition(':')[0]} URLs"


def _request_findings(url: str, send: Callable[[float], Answer], timeout: float) -> Iterator[Finding]:
    started = time.monotonic()
    wall = time.time()
    answer = send(timeout)
    took = time.monotonic() - started
    yield answer_finding(url, answer, took)
    if (skew := _skew(answer.date, wall + took / 2)) is not None:
        yield _clock_finding(skew)
    if (end := answer.certificate.get("notAfter")) is not None:
        yield _expiry_finding(ssl.cert_time_to_seconds(str(end)), wall)


def _skew(date: str, now: float) -> float | None:
    """Return the seconds by which this machine's clock is ahead of the server's; None without a valid date."""
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return now - (moment.timestamp() + 0.5)


def _clock_finding(skew: float) -> Finding:
    if abs(skew) <= MAX_SKEW:
        return Finding("clock", "ok", "this machine's clock agrees with the server's, to within 5 s")
    way = "ahead of" if skew > 0 else "behind"
    seen = f"this machine's clock is {abs(skew):.0f} s {way} the server's, and so are the events' timestamps"
    return Finding("clock", "warning", seen, "Synchronize the clock: see timedatectl, chrony, or the host's NTP.")


def _expiry_finding(end: float, now: float) -> Finding:
    days = int((end - now) // 86_400)
    date = datetime.fromtimestamp(end, timezone.utc).strftime("%Y-%m-%d")
    if days >= MIN_DAYS:
        return Finding("certificates", "ok", f"the server's certificate is valid until {date}")
    seen = f"the server's certificate ends on {date}, in {count(days, 'day')}"
    return Finding("certificates", "warning", seen, "Renew it, or tell the operator of the server or proxy.")
