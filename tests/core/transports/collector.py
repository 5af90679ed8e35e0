"""A receiver of OTLP log records over HTTP, and the way back from a log record to its item."""

from __future__ import annotations

import gzip
import zlib
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from tests.conftest import Answer, ScriptedServer

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

PROTOBUF = {"content-type": "application/x-protobuf"}
PLACES = {"user.id": "user_id", "session.id": "context.session_id", "feature.name": "properties.feature_name"}


class Collector(ScriptedServer):
    """A scripted server that decodes protobuf; the items of its requests are made from the log records.

    Attributes:
        exports: The decoded requests.
    """

    exports: list[ExportLogsServiceRequest]

    def decode(self, headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
        """Return the items of a request."""
        encoding = headers.get("content-encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        export = ExportLogsServiceRequest.FromString(body)
        self.exports = [*getattr(self, "exports", []), export]
        return [item_of(record)[1] for record in records_of(export)]

    @property
    def records(self) -> list[LogRecord]:
        """All log records of all requests, in order."""
        return [record for export in self.exports for record in records_of(export)]


def records_of(export: ExportLogsServiceRequest) -> list[LogRecord]:
    """Return the log records of a request."""
    return [record for group in export.resource_logs for logs in group.scope_logs for record in logs.log_records]


def partial_success(refused: int, words: str) -> Answer:
    """Return the answer of a Collector that left records out of a request."""
    partial = ExportLogsPartialSuccess(rejected_log_records=refused, error_message=words)
    return Answer(200, ExportLogsServiceResponse(partial_success=partial).SerializeToString(), PROTOBUF)


def failure(status: int, words: str, **headers: str) -> Answer:
    """Return an answer with a google.rpc.Status, which has its code and message in the fields 1 and 2."""
    body = ExportLogsPartialSuccess(rejected_log_records=status, error_message=words).SerializeToString()
    return Answer(status, body, {**PROTOBUF, **headers})


def attributes_of(record: LogRecord) -> dict[str, Any]:
    """Return the attributes of a log record."""
    return {pair.key: value_of(pair.value) for pair in record.attributes}


def value_of(value: AnyValue) -> Any:
    """Return the JSON value of an attribute; numbers out of range as Decimal."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "bytes_value":
        return Decimal(value.bytes_value.decode())
    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value) for pair in value.kvlist_value.values}
    if kind == "array_value":
        return [value_of(inner) for inner in value.array_value.values]
    return getattr(value, kind)


def item_of(record: LogRecord) -> tuple[str, dict[str, Any]]:
    """Return the endpoint and the item of a log record."""
    attributes = attributes_of(record)
    path = attributes.pop("thrivestack.path")
    item: dict[str, Any] = {"context": {}}
    item |= {"event_name": record.event_name, "properties": {}} if path == "/track" else {"traits": {}}
    if record.time_unix_nano:
        moment = datetime(1970, 1, 1) + timedelta(microseconds=record.time_unix_nano // 1_000)  # noqa: DTZ001 - UTC
        item["timestamp"] = moment.isoformat(timespec="microseconds") + "Z"
    if record.trace_id:
        item["context"]["trace_id"] = record.trace_id.hex()
    if record.span_id:
        item["context"]["span_id"] = record.span_id.hex()
    places = {**PLACES, "group.id": "group_id" if path == "/group" else "context.group_id"}
    for name, value in attributes.items():
        part, dot, key = places.get(name, name).partition(".")
        if not dot:
            item[part] = value
        elif part == "thrivestack":
            item[key] = value
        else:
            item[part][key] = value
    return path, item
