"""The only user of httpx: one keep-alive client for the life of the worker."""

from __future__ import annotations

import encodings.idna
import logging
import sys
import threading
import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import certifi
import httpcore
import httpx

from ts_autotrack._core.transports.network import CANCELLED, Backend
from ts_autotrack._version import __version__
from ts_autotrack.typing import Response

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack._core.config import ServerSettings

MAX_READ = 65_536
"""Bytes of an answer that are read; its warnings and reasons are shorter."""
MIN_SECRET = 8
"""Characters from which a credential is masked in a server's text; a shorter one is no secret."""
LAZY_IMPORTS = (certifi, encodings.idna, httpcore)
"""Modules that httpx and the first look-up of a host would otherwise import on the sender's thread."""

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")


class HttpTransport:
    """Sends batches to ThriveStack. Redirects are not followed: they would carry the key elsewhere.

    Attributes:
        address: Host of the endpoint, and of the proxy if requests go through a proxy, for messages.
    """

    def __init__(self, settings: ServerSettings) -> None:
        # No compressed answers: a few compressed bytes can fill the memory.
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"ts_autotrack/{__version__}",
        }
        credentials = (settings.api_key, settings.auth_token)
        self._secrets = [text.encode() for text in credentials if text and len(text) >= MIN_SECRET]
        if settings.api_key:
            headers["x-api-key"] = settings.api_key
        if settings.auth_token:
            headers["authorization"] = f"Bearer {settings.auth_token}"
        self._thread = threading.get_ident()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._is_not_ours)
        self._endpoint = settings.endpoint
        self._uninstrumented = False
        # Loading the certificates takes 30 to 60 ms; a plain http endpoint does without.
        self._client = httpx.Client(
            headers=headers, follow_redirects=False, verify=settings.endpoint.startswith("https")
        )
        self._backend = Backend()
        self.address = _address(self._client, settings.endpoint)
        for transport in (self._client._transport, *self._client._mounts.values()):  # noqa: SLF001 - no public way
            if isinstance(transport, httpx.HTTPTransport):
                transport._pool._network_backend = self._backend  # noqa: SLF001 - httpx passes no backend on

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """POST the items as one JSON array; a missing answer is a Response with status 0."""
        self._uninstrument()
        self._backend.begin(timeout)
        try:
            with self._client.stream(
                "POST",
                self._endpoint + path,
                content=_array(bodies),
                timeout=timeout,
            ) as answer:
                body = self._body(answer)
            # Otherwise the answer and its stream keep each other and the request's body until a garbage collection:
            # 100,000 events sent after an outage left 24 MB.
            answer.stream = httpx.ByteStream(b"")
            self._client.cookies.clear()  # a server may set a new cookie with each answer
            retry_after, content_type = answer.headers.get("retry-after"), answer.headers.get("content-type", "")
            return Response(answer.status_code, body, _seconds(retry_after), content_type)
        except (httpx.HTTPError, OSError) as error:
            return Response(0, (CANCELLED if self._backend.cancelled else f"{type(error).__name__}: {error}").encode())

    def cancel(self) -> None:
        """End the request in progress, from any thread."""
        self._backend.cancel()

    def _body(self, answer: httpx.Response) -> bytes:
        """Return the beginning of the body, with credentials masked. A truncated body does no harm."""
        body = b""
        try:
            for part in answer.iter_raw():
                body += part
                if len(body) >= MAX_READ:
                    break
        except httpx.HTTPError:
            pass
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return body

    def _uninstrument(self) -> None:
        """Exclude our requests from the application's OpenTelemetry instrumentation of HTTP clients."""
        if not self._uninstrumented and "opentelemetry.context" in sys.modules:
            from opentelemetry import context  # loaded already

            context.attach(context.set_value("suppress_instrumentation", True))
            self._uninstrumented = True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._is_not_ours)

    def _is_not_ours(self, record: logging.LogRecord) -> bool:
        """Keep the HTTP client's lines about our own requests out of the application's log."""
        return record.thread != self._thread


def _address(client: httpx.Client, endpoint: str) -> str:
    url = httpx.URL(endpoint)
    pool = getattr(client._transport_for_url(url), "_pool", None)  # noqa: SLF001 - no public way
    proxy = getattr(pool, "_proxy_url", None)
    return url.host if proxy is None else f"{url.host} by the proxy {proxy.host.decode()}:{proxy.port}"


def _array(bodies: Sequence[bytes]) -> bytes:
    """Return the JSON array of the items in one copy; brackets around a joined body would cost two more copies."""
    if len(bodies) == 1:
        return b"[%b]" % bodies[0]
    return b",".join([b"[" + bodies[0], *bodies[1:-1], bodies[-1] + b"]"])


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header with seconds or a date; None for anything else."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(retry_after)
        if moment.tzinfo is None:  # "-0000", or no zone at all: HTTP has UTC only
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
