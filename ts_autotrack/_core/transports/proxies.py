"""The proxy and the certificates that the environment names for an endpoint.

httpx reads the same variables, but takes an IPv6 network in NO_PROXY for a host name and raises, matches no CIDR, and
names neither variable nor file when a value is no good.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from typing import NamedTuple

import certifi

from ts_autotrack._core.config import environment
from ts_autotrack._core.parsers import host_and_port, is_local
from ts_autotrack._core.redaction import mask_url

SCHEMES = ("http", "https", "socks5", "socks5h")
"""Schemes of a proxy that the HTTP client speaks; SOCKS needs the package `socksio`."""
_PORTS = {"http": "80", "https": "443"}


class NetworkSettingError(Exception):
    """A proxy or certificate setting that cannot be used. The message names the variable and its value."""


class ProxySetting(NamedTuple):
    """Proxy for an endpoint.

    Attributes:
        source: Variable, such as "HTTPS_PROXY".
        url: URL with a scheme; it may hold credentials.
    """

    source: str
    url: str

    @property
    def shown(self) -> str:
        """Variable and value for messages, without credentials."""
        return f"{self.source}={mask_url(self.url)}"


def proxy_for(endpoint: str) -> ProxySetting | None:
    """Return the proxy for an endpoint; None without one, and always for an endpoint on this machine.

    Raises:
        NetworkSettingError: If the proxy's scheme is unknown.
    """
    proxies = urllib.request.getproxies()
    scheme = endpoint.partition("://")[0]
    name = scheme if proxies.get(scheme) else "all"
    value = proxies.get(name, "").strip()
    if not value or is_local(endpoint) or _is_excluded(endpoint, proxies.get("no", "")):
        return None
    proxy = ProxySetting(_variable(name), value if "://" in value else f"http://{value}")
    if proxy.url.partition("://")[0].lower() not in SCHEMES:
        message = f"{proxy.shown} cannot be used: the scheme of a proxy is one of {', '.join(SCHEMES)}"
        raise NetworkSettingError(message)
    return proxy


def tls_context() -> ssl.SSLContext:
    """Return a context with the certificates of SSL_CERT_FILE or SSL_CERT_DIR, otherwise with certifi's.

    Raises:
        NetworkSettingError: If the file or directory holds no certificates.
    """
    file, folder = environment("SSL_CERT_FILE"), environment("SSL_CERT_DIR")
    if folder and not file:
        if not os.path.isdir(folder):
            message = f"SSL_CERT_DIR={folder} cannot be used: there is no such directory"
            raise NetworkSettingError(message)
        return ssl.create_default_context(capath=folder)
    try:
        return ssl.create_default_context(cafile=file or certifi.where())
    except OSError as error:  # ssl.SSLError is an OSError
        source = f"SSL_CERT_FILE={file}" if file else f"the certificates of certifi, {certifi.where()},"
        message = f"{source} cannot be used: {error.strerror or error}"
        raise NetworkSettingError(message) from None


def _variable(name: str) -> str:
    """Return the name of the variable that sets this proxy; the lower-case variable wins, as in urllib."""
    names = (f"{name}_proxy", f"{name}_PROXY".upper())
    return next((name for name in names if environment(name)), "the system's proxy setting")


def _is_excluded(endpoint: str, no_proxy: str) -> bool:
    """Return True if NO_PROXY, or the system's list of exceptions, excludes the endpoint's host."""
    host, port = host_and_port(endpoint)
    port = port.removeprefix(":") or _PORTS[endpoint.partition("://")[0]]
    entries = no_proxy.replace(",", " ").lower().split()
    return any(_matches(entry, host, port) for entry in entries) or bool(urllib.request.proxy_bypass(host))


def _matches(entry: str, host: str, port: str) -> bool:
    """Return True if an entry of NO_PROXY covers a host: `*`, a domain, an address or a network, maybe with a port."""
    entry = entry.rpartition("://")[2]
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        pass  # the host or the entry is a name, or the entry has a port
    if entry.startswith("["):
        name, _, wanted = entry[1:].partition("]")
        wanted = wanted.removeprefix(":")
    else:
        name, _, wanted = entry.partition(":")
    name = name.removeprefix("*").strip(".")
    if not name or (wanted and wanted != port):
        return False
    return host == name or host.rstrip(".") == name or host.endswith(f".{name}")
