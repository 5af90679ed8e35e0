"""Items as log records: each item can be made again."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tests.core.transports.collector import attributes_of, item_of
from ts_autotrack._core.transports.log_record import fill

MOMENT = "2026-11-26T13:17:32.931882Z"


def written(path: str, item: dict[str, Any] | bytes) -> LogRecord:
    """Return the log record of an item, after its way over the network."""
    record = LogRecord()
    fill(record, path, item if isinstance(item, bytes) else json.dumps(item).encode())
    arrived = LogRecord()
    arrived.ParseFromString(record.SerializeToString())
    return arrived


def tracked(**more: Any) -> dict[str, Any]:
    """Return an item for /track."""
    return {"user_id": "u", "context": {}, "timestamp": MOMENT, "event_name": "e", "properties": {}, **more}


def test_attributes_have_standard_names() -> None:
    """User, account, session and feature have names of their own; other values keep their place in their name."""
    context = {"group_id": "g", "session_id": "s", "event_id": "i", "trace_id": "0af7651916cd43dd8448eb211c80319c"}
    context["span_id"] = "b7ad6b7169203331"
    properties = {"feature_name": "export", "rows": 3, "user.id": "other"}
    record = written("/track", tracked(event_name="feature_used", context=context, properties=properties))
    assert attributes_of(record) == {
        "thrivestack.path": "/track",
        "user.id": "u",
        "group.id": "g",
        "session.id": "s",
        "context.event_id": "i",
        "feature.name": "export",
        "properties.rows": 3,
        "properties.user.id": "other",
    }
    assert record.event_name == "feature_used"
    assert record.time_unix_nano == record.observed_time_unix_nano == 1_795_699_052_931_882_000
    assert record.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert record.span_id.hex() == "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("path", "item", "name"),
    [
        (
            "/identify",
            {"user_id": "u", "context": {"group_id": "g"}, "timestamp": MOMENT, "traits": {"a": 1}},
            "identify",
        ),
        ("/group", {"user_id": "u", "context": {"group_id": "g"}, "group_id": "h", "traits": {}}, "group"),
        ("/track", tracked(event_name="identify"), "identify"),
        ("/track", tracked(timestamp="1969-12-31T23:59:59.999999Z"), "e"),
        ("/track", tracked(timestamp="9999-12-31T23:59:59.999999Z"), "e"),
        ("/track", tracked(timestamp="yesterday"), "e"),
        ("/track", tracked(context={"trace_id": "0" * 32, "span_id": "B7AD6B7169203331"}), "e"),
        ("/track", tracked(context={"trace_id": 5, "span_id": "no id"}), "e"),
        ("/track", tracked(properties={"": None, "a": [[], {}, None, True, -1.5, {"b": ["c"]}]}), "e"),
        ("/track", tracked(later="field of a later version"), "e"),
    ],
)
def test_item_can_be_made_again(path: str, item: dict[str, Any], name: str) -> None:
    """The log record of any item holds the whole item: other endpoints, odd times and ids, nested values."""
    record = written(path, item)
    assert record.event_name == name
    assert item_of(record) == (path, item)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), values, max_size=4), st.dictionaries(st.text(), values, max_size=4))
def test_any_values_survive(context: dict[str, Any], properties: dict[str, Any]) -> None:
    """Any names and JSON values of context and properties come back, whole numbers of any length included."""
    item = tracked(context=context, properties=properties)
    assert item_of(written("/track", item)) == ("/track", item)


@pytest.mark.parametrize(
    "digits", ["19.99", "19.990", "0.1000000000000000000000000001", "1e400", "9" * 5_000, "9223372036854775808", "-0.0"]
)
def test_numbers_keep_their_digits(digits: str) -> None:
    """A number that a double does not hold comes back with all of its digits, as a Decimal of the application."""
    body = json.dumps(tracked(properties={"n": 7})).replace("7}", digits + "}").encode()
    number = attributes_of(written("/track", body))["properties.n"]
    assert Decimal(str(number)) == Decimal(digits)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"a": ', b"5", b'{"a": "\\ud800"}'])
def test_damaged_item_is_an_error(body: bytes) -> None:
    """Bytes that are no JSON object, as after damage on the disk, become no log record."""
    with pytest.raises(ValueError):  # noqa: PT011 - of the JSON decoder, of protobuf or of this library
        written("/track", body)
