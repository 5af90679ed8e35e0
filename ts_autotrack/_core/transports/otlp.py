"""Transport to an OpenTelemetry Collector: items as log records, OTLP over HTTP with protobuf.

The official exporter, `opentelemetry-exporter-otlp-proto-http`, hides too much for the guarantees of this library: its
result is success or failure without a status, a redirect is a success, refused records of a partial success are
ignored, and no other thread can end its request. So the requests are this library's own, and the messages are the
official protobuf classes.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from typing import TYPE_CHECKING, Any, ClassVar

from ts_autotrack._core.redaction import mask_bytes
from ts_autotrack._core.transports import otlp_settings
from ts_autotrack._core.transports.http import HttpClient
from ts_autotrack._core.transports.log_record import fill, set_value
from ts_autotrack._core.transports.proxies import NetworkSettingError
from ts_autotrack._version import __version__
from ts_autotrack.typing import Response

_logs: Any
try:
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
    from opentelemetry.proto.logs.v1 import logs_pb2

    logs_pb2.LogRecord(event_name="")  # raises with older versions
    _logs, _PROBLEM = logs_service_pb2, ""
except Exception as error:  # noqa: BLE001 - absent, too old, or made for another version of protobuf
    _logs, _PROBLEM = None, f"{type(error).__name__}: {error}"

if TYPE_CHECKING:
    from collections.abc import Sequence

SUCCESS, BAD_REQUEST = 200, 400
REST_EVERY = 50
"""Log records between two rests. A log record takes 16 us."""
REST = 0.000_001
"""Seconds of a rest, in which the application's threads get the GIL.

Beside a batch of 1,000, a thread back from I/O waits for 0.4 ms (median), without the rests for 5.2 ms.
"""


class OtlpTransport(HttpClient):
    """Sends batches to a Collector. The OTEL_EXPORTER_OTLP_* variables name the Collector."""

    names: ClassVar = {
        "server": "an OTLP receiver's",
        "credentials": "OTEL_EXPORTER_OTLP_HEADERS",
        "endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    }
    """Names in the advice to the operator."""

    def __init__(self) -> None:
        otlp_settings.warn_of_protocol()
        self._compression = otlp_settings.read_compression()
        self._resource = otlp_settings.read_resource()
        headers = {**otlp_settings.read_headers(), "content-type": "application/x-protobuf"}
        if self._compression != "none":
            headers["content-encoding"] = self._compression
        self._unusable = _UNUSABLE.format(_PROBLEM) if _PROBLEM else ""
        try:
            url = otlp_settings.read_url()
        except NetworkSettingError as error:
            url, self._unusable = otlp_settings.DEFAULT_BASE, str(error)
        super().__init__(url, headers, otlp_settings.otlp_tls_context)

    @property
    def address(self) -> str:
        """See `HttpClient`."""
        return "" if self._unusable else super().address

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """See `Transport`."""
        if self._unusable:
            return Response(0, self._unusable.encode())
        try:
            content = self._encode(path, bodies)
        except (ValueError, ArithmeticError, RecursionError) as error:  # the exporter looks for the item
            return Response(BAD_REQUEST, f"not sent: no log record can be made of the item: {error}".encode())
        return _decode(self.post("", content, timeout), len(bodies))

    def _encode(self, path: str, bodies: Sequence[bytes]) -> bytes:
        request = _logs.ExportLogsServiceRequest()
        group = request.resource_logs.add()
        for name, value in self._resource.items():
            set_value(group.resource.attributes.add(key=name).value, value)
        logs = group.scope_logs.add()
        logs.scope.name, logs.scope.version = "ts_autotrack", __version__
        add = logs.log_records.add
        for position, body in enumerate(bodies, 1):
            fill(add(), path, body)
            if position % REST_EVERY == 0:
                time.sleep(REST)
        content: bytes = request.SerializeToString()
        if self._compression == "gzip":
            return gzip.compress(content)
        return zlib.compress(content) if self._compression == "deflate" else content


def _decode(response: Response, count: int) -> Response:
    """Return an answer to `count` items with its words as text, masked, and with the number of refused items."""
    if "protobuf" not in response.content_type.lower() or not response.body:
        return _with(response, response.body)
    if response.status != SUCCESS:
        # The body is a google.rpc.Status, which has its message where a partial success has its own.
        status = _parse(_logs.ExportLogsPartialSuccess, response.body)
        return _with(response, response.body if status is None else status.error_message.encode())
    answer = _parse(_logs.ExportLogsServiceResponse, response.body)
    if answer is None:
        return _with(response, _warning("the answer is no ExportLogsServiceResponse"))
    partial = answer.partial_success
    refused, words = min(max(partial.rejected_log_records, 0), count), partial.error_message
    if refused == count:  # no item has arrived, so each one may be sent again: the answer to an item alone names it
        return _with(response, (words or "rejected").encode(), status=BAD_REQUEST)
    if refused:
        return _with(response, (words or "rejected").encode(), rejected=refused)
    return _with(response, _warning(words) if words else b"")


def _with(response: Response, body: bytes, *, status: int | None = None, rejected: int = 0) -> Response:
    """Return an answer with another body, in which credentials are masked.

    Not by `_replace`, which keeps areas of Python's allocator in use: see `HttpTransport.read`.
    """
    given = response.status if status is None else status
    return Response(given, mask_bytes(body), response.retry_after, response.content_type, rejected)


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except Exception:  # noqa: BLE001 - DecodeError of any implementation of protobuf
        return None


def _warning(words: str) -> bytes:
    return json.dumps({"warnings": [words]}).encode()


_UNUSABLE = (
    "the exporter otlp needs the package opentelemetry-proto, 1.35 or newer: run pip install 'ts_autotrack[otlp]', and "
    "start the process again ({})"
)
