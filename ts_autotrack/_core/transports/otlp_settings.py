"""The OTEL_* variables of an OTLP exporter for logs over HTTP.

`OTEL_EXPORTER_OTLP_LOGS_*` wins over `OTEL_EXPORTER_OTLP_*`. Timeouts are this library's own.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple
from urllib.parse import unquote

from ts_autotrack._core import parsers
from ts_autotrack._core.config import environment
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.redaction import mask_url, protect
from ts_autotrack._core.transports.proxies import NetworkSettingError, tls_context

DEFAULT_BASE, LOGS_PATH = "http://localhost:4318", "/v1/logs"
PROTOCOL = "http/protobuf"
COMPRESSIONS = ("none", "gzip", "deflate")


class Variable(NamedTuple):
    """A variable in force.

    Attributes:
        name: Name; the general one if neither is set.
        value: Value; an empty text without one.
    """

    name: str
    value: str


def variable(what: str) -> Variable:
    """Return the variable for logs, or else the one for all signals."""
    own, general = f"OTEL_EXPORTER_OTLP_LOGS_{what}", f"OTEL_EXPORTER_OTLP_{what}"
    value = environment(own).strip()
    return Variable(own, value) if value else Variable(general, environment(general).strip())


def read_url() -> str:
    """Return the URL for logs.

    Raises:
        NetworkSettingError: If a variable holds no URL.
    """
    found = variable("ENDPOINT")
    url = found.value or DEFAULT_BASE
    if found.name == "OTEL_EXPORTER_OTLP_ENDPOINT":
        url = url.rstrip("/") + LOGS_PATH
    complaint = parsers.complaint_about(url.partition("?")[0], DEFAULT_BASE, "OTEL_EXPORTER_OTLP_HEADERS")
    if complaint is not None:
        message = f"{found.name}={mask_url(found.value)} cannot be used: {complaint}"
        raise NetworkSettingError(message)
    return url


def read_headers() -> dict[str, str]:
    """Return the headers. Their values are masked in all messages from now on."""
    found = variable("HEADERS")
    headers = {}
    for entry in filter(None, map(str.strip, found.value.split(","))):
        name, sign, value = (unquote(part).strip() for part in entry.partition("="))  # no header may end in a space
        if sign and name.isascii() and name.replace("-", "").replace("_", "").isalnum() and _is_plain(value):
            headers[name.lower()] = value
            protect(value)
            protect(value.rpartition(" ")[2])  # a token after its scheme
        else:
            warn_once(
                ("setting", found.name),
                f"an entry of {found.name} is ignored: expected name=value, separated by commas, with special "
                "characters percent-encoded",
            )
    return headers


def read_compression() -> str:
    """Return "none", "gzip" or "deflate"."""
    found = variable("COMPRESSION")
    chosen = found.value.lower() or "none"
    if chosen not in COMPRESSIONS:
        message = f"{found.name}={found.value} is ignored: expected one of {', '.join(COMPRESSIONS)}"
        warn_once(("setting", found.name), message)
        return "none"
    return chosen


def warn_of_protocol() -> None:
    """Warn if another protocol is set: requests go over HTTP all the same, and may miss the Collector's port."""
    found = variable("PROTOCOL")
    if found.value not in ("", PROTOCOL):
        warn_once(
            ("setting", found.name),
            f"{found.name}={found.value} is ignored: the exporter otlp speaks {PROTOCOL}. Let "
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT name the Collector's HTTP receiver, such as http://localhost:4318/v1/logs.",
        )


def read_resource() -> dict[str, str]:
    """Return the attributes of the resource: OTEL_RESOURCE_ATTRIBUTES, and OTEL_SERVICE_NAME as `service.name`."""
    resource = {"service.name": "unknown_service"}
    text = environment("OTEL_RESOURCE_ATTRIBUTES")
    for entry in filter(None, map(str.strip, text.split(","))):
        name, sign, value = (unquote(part.strip()) for part in entry.partition("="))
        if sign and name:
            resource[name] = value
        else:
            message = "an entry of OTEL_RESOURCE_ATTRIBUTES is ignored: expected name=value, separated by commas"
            warn_once(("setting", "OTEL_RESOURCE_ATTRIBUTES"), message)
    service = environment("OTEL_SERVICE_NAME").strip()
    return {**resource, "service.name": service} if service else resource


def otlp_tls_context() -> ssl.SSLContext:
    """Return a context with the certificates that the variables name; without them, the same as for ThriveStack.

    Raises:
        NetworkSettingError: If a file holds no certificates or key.
    """
    authority, chain, key = variable("CERTIFICATE"), variable("CLIENT_CERTIFICATE"), variable("CLIENT_KEY")
    context = _trusting(authority) if authority.value else tls_context()
    if chain.value:
        try:
            # An encrypted key fails: asking for its password at the terminal would hold this thread.
            context.load_cert_chain(chain.value, key.value or None, password=str)
        except OSError as error:  # ssl.SSLError is an OSError
            also = f" with {key.name}={key.value}" if key.value else ""
            message = f"{chain.name}={chain.value}{also} cannot be used: {error.strerror or error}"
            raise NetworkSettingError(message) from None
    return context


def _trusting(authority: Variable) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authority.value)
    except OSError as error:
        message = f"{authority.name}={authority.value} cannot be used: {error.strerror or error}"
        raise NetworkSettingError(message) from None


def _is_plain(value: str) -> bool:
    """Return True if a header can hold the value."""
    return value.isascii() and value.isprintable()
