"""Items as OpenTelemetry log records, in a mapping from which each item can be made again.

| log record | item |
|---|---|
| `event_name` | `event_name`; "identify" and "group" for the other endpoints |
| `time_unix_nano` | `timestamp` |
| `trace_id`, `span_id` | `context.trace_id`, `context.span_id`, if these are valid ids |
| attribute `thrivestack.path` | endpoint: "/track", "/identify" or "/group" |
| attribute `user.id` | `user_id` |
| attribute `group.id` | `context.group_id`; of a group item its `group_id` |
| attribute `session.id` | `context.session_id` |
| attribute `feature.name` | `properties.feature_name` |
| attributes `context.*`, `properties.*`, `traits.*` | all other values |
| attributes `thrivestack.*` | other fields of the item; `timestamp` if the time has no exact `time_unix_nano` |

Attributes keep their JSON types. A number that neither a 64-bit integer nor a double holds exactly is `bytes_value`:
its digits in ASCII.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.contract import GROUP, TRACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

PATH = "thrivestack.path"
"""Attribute with the endpoint of the item."""
SEVERITY_INFO = 9
NAMES = {"context.session_id": "session.id", "properties.feature_name": "feature.name"}
"""Attributes with a name of their own, by their place in an item."""
PARTS = ("context", "properties", "traits")
"""Fields of an item whose values become attributes one by one."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the contract's timestamps are in UTC
_MICROSECOND = timedelta(microseconds=1)
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
_MAX_DIGITS = len(str(_MIN_INTEGER))
_MAX_TIME = 2**64 - 1
_TIMESTAMP_LENGTH = len("2026-11-26T13:17:32.931882Z")


def fill(record: LogRecord, path: str, body: bytes) -> None:
    """Write an encoded item into an empty log record.

    Raises:
        ValueError: If the item is no JSON object, as after damage on the disk.
    """
    item = _decoder.decode(body.decode())
    if not isinstance(item, dict):
        message = "the item is no JSON object"
        raise ValueError(message)  # noqa: TRY004 - one kind of error for all damage
    record.event_name = str(item.pop("event_name", "")) if path == TRACK else path.removeprefix("/")
    record.severity_number = SEVERITY_INFO  # type: ignore[assignment]  # the stub asks for a member of the enumeration
    context = item.get("context")
    if isinstance(context, dict):
        record.trace_id = _take_id(context, "trace_id", 16)
        record.span_id = _take_id(context, "span_id", 8)
    record.time_unix_nano = record.observed_time_unix_nano = nanoseconds(item.get("timestamp"))
    if record.time_unix_nano:
        del item["timestamp"]
    add = record.attributes.add
    add(key=PATH).value.string_value = path
    for name, value in _attributes(item, path):
        set_value(add(key=name).value, value)


def nanoseconds(timestamp: object) -> int:
    """Return a timestamp in the contract's form as nanoseconds since 1970; 0 for any other value."""
    if not isinstance(timestamp, str) or len(timestamp) != _TIMESTAMP_LENGTH or timestamp[10::16] != "TZ":
        return 0
    try:
        moment = datetime.fromisoformat(timestamp[:-1])
    except ValueError:
        return 0
    since = (moment - _EPOCH) // _MICROSECOND * 1_000
    return since if 0 <= since <= _MAX_TIME else 0


def set_value(target: AnyValue, value: Any) -> None:
    """Write a JSON value into an attribute."""
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int):
        target.int_value = value
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, dict):
        target.kvlist_value.SetInParent()  # an empty one is there, too
        for name, inner in value.items():
            set_value(target.kvlist_value.values.add(key=name).value, inner)
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for inner in value:
            set_value(target.array_value.values.add(), inner)
    else:
        target.SetInParent()  # null


def _attributes(item: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of an item's attributes."""
    group_key = "group_id" if path == GROUP else "context.group_id"
    names = {**NAMES, "user_id": "user.id", group_key: "group.id"}
    for field, value in item.items():
        if field in PARTS and isinstance(value, dict):
            for name, inner in value.items():
                place = f"{field}.{name}"
                yield names.get(place, place), inner
        else:
            yield names.get(field) or f"thrivestack.{field}", value


def _take_id(context: dict[str, Any], name: str, length: int) -> bytes:
    """Remove a valid id of a trace or span from a context and return its bytes; empty bytes without one."""
    text = context.get(name)
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""
    if len(found) != length or not any(found) or found.hex() != text:
        return b""
    del context[name]
    return found


def _integer(digits: str) -> int | bytes:
    if len(digits) > _MAX_DIGITS:  # Python refuses to read thousands of digits
        return digits.encode()
    number = int(digits)
    return number if _MIN_INTEGER <= number <= _MAX_INTEGER else digits.encode()


def _number(digits: str) -> float | bytes:
    number = float(digits)
    shown = repr(number)
    return number if shown == digits or Decimal(shown) == Decimal(digits) else digits.encode()


_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_number)
