"""The only user of httpx: one keep-alive client for the life of the worker."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

# httpx does without its command line where that is not installed. Where it is (click, rich, pygments), loading it takes
# 7 MB of the 26 and 45 ms of the 150 of a process's first delivery; so here it is not installed, for as long as this
# import takes.
_COMMAND_LINE = "httpx._main"
sys.modules.setdefault(_COMMAND_LINE, None)  # type: ignore[arg-type]
import httpx  # noqa: E402

if sys.modules.get(_COMMAND_LINE) is None:
    sys.modules.pop(_COMMAND_LINE, None)

from ts_autotrack._core.delivery.exporter import Response  # noqa: E402
from ts_autotrack._version import __version__  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack._core.config import Config

MOST_READ = 65_536
"""Bytes of an answer that are read at the most; its warnings and reasons are shorter."""
LEAST_SECRET = 8
"""Characters of a credential from which on it is masked in what a server says; a shorter one is no secret."""
CONNECT_TIMEOUT = 5.0
"""Seconds, within the request's own timeout."""

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")


class HttpTransport:
    """Sends batches to ThriveStack's contract. Redirects are not followed: they would carry the key elsewhere."""

    def __init__(self, config: Config) -> None:
        # No compressed answers: a few bytes of them can fill the memory.
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": f"ts_autotrack/{__version__}",
        }
        credentials = (config.api_key, config.auth_token)
        self._secrets = [text.encode() for text in credentials if text and len(text) >= LEAST_SECRET]
        if config.api_key:
            headers["x-api-key"] = config.api_key
        if config.auth_token:
            headers["authorization"] = f"Bearer {config.auth_token}"
        self._thread = threading.get_ident()
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._is_not_ours)
        "".encode("idna")  # the first look-up of a host imports it, and all imports are to be over before a fork
        self._endpoint = config.endpoint
        self._uninstrumented = False
        # Loading the certificates takes 30 to 60 ms, which a plain http endpoint need not wait for.
        self._client = httpx.Client(headers=headers, follow_redirects=False, verify=config.endpoint.startswith("https"))

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """POST the items as one JSON array; a failure to get an answer is a Response with status 0."""
        self._uninstrument()
        deadline = time.monotonic() + timeout
        try:
            with self._client.stream(
                "POST",
                self._endpoint + path,
                content=_array(bodies),
                timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
            ) as answer:
                body = self._body(answer, deadline)
            # Else the answer and its stream hold each other, and with them the request's body, until a collection:
            # 100,000 events that go out after an outage left 24 MB of them.
            answer.stream = httpx.ByteStream(b"")
            self._client.cookies.clear()  # nobody asks for them, and a server may set another one with each answer
            retry_after, content_type = answer.headers.get("retry-after"), answer.headers.get("content-type", "")
            return Response(answer.status_code, body, _seconds(retry_after), content_type)
        except (httpx.HTTPError, OSError) as error:
            return Response(0, f"{type(error).__name__}: {error}".encode())

    def _body(self, answer: httpx.Response, deadline: float) -> bytes:
        """Return the beginning of the body, credentials masked. The status has decided: one cut short is no fault."""
        body = b""
        try:
            for part in answer.iter_raw():
                body += part
                if len(body) >= MOST_READ or time.monotonic() > deadline:
                    break
        except httpx.HTTPError:
            pass
        for secret in self._secrets:
            body = body.replace(secret, b"***")
        return body

    def _uninstrument(self) -> None:
        """Keep OpenTelemetry's instrumentation of HTTP clients, if the application uses it, off our own requests."""
        if not self._uninstrumented and "opentelemetry.context" in sys.modules:
            from opentelemetry import context  # noqa: PLC0415 - loaded already

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


def _array(bodies: Sequence[bytes]) -> bytes:
    """Return the JSON array of the items in one copy: brackets around a joined body would copy it twice more."""
    if len(bodies) == 1:
        return b"[%b]" % bodies[0]
    return b",".join([b"[" + bodies[0], *bodies[1:-1], bodies[-1] + b"]"])


def _seconds(retry_after: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, which holds seconds or a date; None if it holds neither."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    from datetime import timezone  # noqa: PLC0415 - lazy: few servers send a date
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - likewise

    try:
        moment = parsedate_to_datetime(retry_after)
        if moment.tzinfo is None:  # "-0000", or no zone at all: HTTP knows no other than UTC
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
