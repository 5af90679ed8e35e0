"""The only user of httpx: one keep-alive client for the life of the worker, and ThriveStack's transport."""

from __future__ import annotations

import encodings.idna
import encodings.punycode
import logging
import re
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpcore
import httpx

from ts_autotrack._core.contract import INSPECTOR, REPORTS
from ts_autotrack._core.parsers import is_local
from ts_autotrack._core.redaction import mask, mask_bytes
from ts_autotrack._core.transports.network import CANCELLED, Backend
from ts_autotrack._core.transports.proxies import NetworkSettingError, ProxySetting, proxy_for, tls_context
from ts_autotrack._version import __version__
from ts_autotrack.typing import Response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Sequence

    from ts_autotrack._core.config import ServerSettings

MAX_READ = 65_536
"""Bytes of an answer that are read; its warnings and reasons are shorter."""
LAZY_IMPORTS = (encodings.idna, encodings.punycode, httpcore)
"""Modules that httpx and the first look-up of a host would otherwise import on the sender's thread."""

_LOGGERS = [logging.getLogger(name) for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")]


class HttpClient:
    """Posts to one server. Redirects are not followed: they would carry credentials elsewhere."""

    def __init__(self, endpoint: str, headers: dict[str, str], tls: Callable[[], ssl.SSLContext] = tls_context) -> None:
        # No compressed answers: a few compressed bytes can fill the memory.
        self._headers = {"accept-encoding": "identity", "user-agent": f"ts_autotrack/{__version__}", **headers}
        self._endpoint = endpoint
        self._tls = tls
        self._thread = threading.get_ident()
        self._backend = Backend()
        self._problem = ""  # the setting that keeps the client from opening
        self._via = ""  # the proxy, for messages
        self._client = self._open()
        for logger in _LOGGERS:
            logger.addFilter(self._is_not_ours)

    def _open(self) -> httpx.Client | None:
        """Return a client; None if a proxy or certificate setting is no good.

        `post` tries again, at the pace of the exporter's attempts: somebody may mend the file.
        """
        try:
            # The certificates come first: they initialize OpenSSL, which must not happen in `post`, beside a fork.
            # Loading them takes 30 to 60 ms; a plain http endpoint does without.
            context = self._tls() if self._endpoint.startswith("https") else None
            proxy = proxy_for(self._endpoint)
            self._via = f" (through {proxy.shown})" if proxy else ""
            return self._with_deadlines(_client(self._headers, context, proxy))
        except NetworkSettingError as error:
            self._problem = str(error)
            return None

    @property
    def address(self) -> str:
        """Host of the endpoint, and the proxy if requests go through one, for messages."""
        return f"{httpx.URL(self._endpoint).host}{self._via}"

    def _with_deadlines(self, client: httpx.Client) -> httpx.Client:
        """Return the client with connections that end with the deadline of their request."""
        for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001 - no public way
            if isinstance(transport, httpx.HTTPTransport):
                transport._pool._network_backend = self._backend  # noqa: SLF001 - httpx passes no backend on
        return client

    def post(self, path: str, content: bytes, timeout: float) -> Response:
        """POST a body; a missing answer is a Response with status 0. The answer's body may repeat credentials."""
        return self.request("POST", path, content, timeout)

    def request(self, method: str, path: str, content: bytes | None, timeout: float) -> Response:
        """Make a request of any method; see `post`."""
        self._client = self._client or self._open()
        if self._client is None:
            return Response(0, self._problem.encode())
        self._backend.begin(timeout)
        with _uninstrumented():
            return self._request(method, path, content, timeout)

    def _request(self, method: str, path: str, content: bytes | None, timeout: float) -> Response:
        client: Any = self._client
        try:
            with client.stream(method, self._endpoint + path, content=content, timeout=timeout) as answer:
                body = self.read(answer)
            # Otherwise the answer and its stream keep each other and the request's body until a garbage collection:
            # 100,000 events sent after an outage left 24 MB.
            answer.stream = httpx.ByteStream(b"")
            client.cookies.clear()  # a server may set a new cookie with each answer
            retry_after, content_type = answer.headers.get("retry-after"), answer.headers.get("content-type", "")
            return Response(answer.status_code, body, _seconds(retry_after), content_type)
        except (httpx.HTTPError, OSError) as error:
            words = CANCELLED if self._backend.cancelled else f"{type(error).__name__}: {error}{self._via}"
            return Response(0, mask(words).encode())

    def read(self, answer: httpx.Response) -> bytes:
        """Return the beginning of the body. A truncated body does no harm."""
        body = b""
        try:
            for part in answer.iter_raw():
                body += part
                if len(body) >= MAX_READ:
                    break
        except httpx.HTTPError:
            pass
        return body

    def cancel(self) -> None:
        """End the request in progress, from any thread."""
        self._backend.cancel()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
        for logger in _LOGGERS:
            logger.removeFilter(self._is_not_ours)

    def _is_not_ours(self, record: logging.LogRecord) -> bool:
        """Keep the HTTP client's lines about our own requests out of the application's log."""
        return record.thread != self._thread


class HttpTransport(HttpClient):
    """Sends batches to ThriveStack, as JSON arrays.

    Attributes:
        inspector: True if the last answer came from an inspector on this machine; None before the first answer.
    """

    def __init__(self, settings: ServerSettings) -> None:
        headers = {"content-type": "application/json"}
        if settings.api_key:
            headers["x-api-key"] = settings.api_key
        if settings.auth_token:
            headers["authorization"] = f"Bearer {settings.auth_token}"
        super().__init__(settings.endpoint, headers)
        self._is_local = is_local(settings.endpoint)
        # Requests to this machine go through no proxy.
        self.inspector: bool | None = None if self._is_local else False

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """See `Transport`."""
        return self.post(path, _array(bodies), timeout)

    def read(self, answer: httpx.Response) -> bytes:
        """Return the beginning of the body, with credentials masked; note whether an inspector answers.

        Not on the finished Response: its `_replace` kept 12 areas of Python's allocator in use, so that no memory of
        100,000 events returned after an outage.
        """
        self.inspector = self._is_local and INSPECTOR in answer.headers
        return mask_bytes(super().read(answer))

    def ask(self, timeout: float) -> None:
        """Find out whether the endpoint is an inspector, without sending anything of this process."""
        self.request("GET", REPORTS, None, timeout)

    def report(self, body: bytes, timeout: float) -> Response:
        """Send the report of this process to an inspector."""
        return self.post(REPORTS, body, timeout)


_QUOTED = re.compile(r"'([^']*)'")
_UNREADABLE = "write special characters of its credentials as %XX, such as %2F for a slash"


def _client(headers: dict[str, str], context: ssl.SSLContext | None, proxy: ProxySetting | None) -> httpx.Client:
    """Return a client that takes nothing more from the environment.

    Raises:
        NetworkSettingError: If the proxy cannot be used.
    """
    verify = False if context is None else context
    try:
        if proxy is None:
            used = None
        elif proxy.url.lower().startswith("https"):
            used = httpx.Proxy(proxy.url, ssl_context=context or tls_context())
        else:
            used = httpx.Proxy(proxy.url)
        return httpx.Client(headers=headers, follow_redirects=False, trust_env=False, verify=verify, proxy=used)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        if proxy is None:
            raise
        reason = str(error)
        if any(part not in proxy.shown for part in _QUOTED.findall(reason)) and "@" in proxy.url:
            reason = _UNREADABLE  # the HTTP client quotes a part of the password
        message = f"{proxy.shown} cannot be used: {reason}"
        raise NetworkSettingError(message) from None


@contextmanager
def _uninstrumented() -> Iterator[None]:
    """Exclude our requests from the application's OpenTelemetry instrumentation of HTTP clients.

    Only for the request: where no thread can be started, the application's own thread sends.
    """
    if "opentelemetry.context" not in sys.modules:
        yield
        return
    from opentelemetry import context  # loaded already

    token = context.attach(context.set_value("suppress_instrumentation", True))
    try:
        yield
    finally:
        context.detach(token)


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
