"""One real request by the library's own transport, with the test event or without any."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ts_autotrack._core.contract import SOURCE, TRACK
from ts_autotrack._core.delivery.answers import THRIVESTACK
from ts_autotrack._core.transports.http import HttpClient, HttpTransport
from ts_autotrack._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ts_autotrack._core.config import Config
    from ts_autotrack.typing import Response

TEST_EVENT = "ts_autotrack_doctor"
"""Name, user and account of the event of `--send`."""


class Answer(NamedTuple):
    """Answer to the request.

    Attributes:
        response: Status and body; status 0 without an answer.
        sent: True if the request carried the test event.
        names: Names of server, credentials and endpoint, for advice.
        date: `Date` header.
        location: `Location` header.
        certificate: Certificate of the server, see `ssl.SSLSocket.getpeercert`.
    """

    response: Response
    sent: bool
    names: Mapping[str, str]
    date: str = ""
    location: str = ""
    certificate: Mapping[str, object] = {}


class Observed(HttpClient):
    """HTTP client that keeps the headers and the server's certificate of its last answer."""

    names: ClassVar[Mapping[str, str]] = THRIVESTACK
    date = location = ""
    certificate: Mapping[str, object] = {}

    def read(self, answer: Any) -> bytes:
        """See `HttpClient`."""
        self.date, self.location = answer.headers.get("date", ""), answer.headers.get("location", "")
        stream = answer.extensions.get("network_stream")
        tls = None if stream is None else stream.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate = tls.getpeercert() or {}
        return super().read(answer)


class ThriveStackRequest(Observed, HttpTransport):
    """Request to ThriveStack."""

    def send_nothing(self, timeout: float) -> Response:
        """Send an empty array, which creates no event."""
        return self.post(TRACK, b"[]", timeout)


def thrivestack(config: Config, *, send: bool) -> Callable[[float], Answer]:
    """Return a function that sends an empty batch, or the test event, to ThriveStack."""

    def request(timeout: float) -> Answer:
        return _ask(ThriveStackRequest(config.server), timeout, send=send)

    return request


def collector(*, send: bool) -> tuple[str, Callable[[float], Answer]]:
    """Return the URL of the OpenTelemetry Collector, and a function that sends no log record, or the test event.

    Raises:
        NetworkSettingError: If a variable holds no URL.
    """
    from ts_autotrack._core.transports.otlp import OtlpTransport  # lazily: the exporter otlp is optional
    from ts_autotrack._core.transports.otlp_settings import read_url

    class CollectorRequest(Observed, OtlpTransport):
        names: ClassVar = OtlpTransport.names

        def send_nothing(self, timeout: float) -> Response:
            return self.send(TRACK, [], timeout)

    return read_url(), lambda timeout: _ask(CollectorRequest(), timeout, send=send)


def make_event() -> bytes:
    """Return the test event as an item."""
    moment = datetime.fromtimestamp(time.time(), timezone.utc)
    item = {
        "event_name": TEST_EVENT,
        "user_id": TEST_EVENT,
        "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "properties": {"version": __version__},
        "context": {"group_id": TEST_EVENT, "source": SOURCE, "event_id": str(uuid.uuid4())},
    }
    return json.dumps(item).encode()


def _ask(transport: Any, timeout: float, *, send: bool) -> Answer:
    try:
        response = transport.send(TRACK, [make_event()], timeout) if send else transport.send_nothing(timeout)
    finally:
        transport.close()
    return Answer(response, send, transport.names, transport.date, transport.location, transport.certificate)
