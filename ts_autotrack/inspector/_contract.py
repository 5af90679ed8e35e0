"""ThriveStack's ingestion contract, checked strictly: each error names the item and the field.

The module shares no code with the engine, so that a test against the inspector checks the engine independently.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ITEMS = 1_000
"""Items in a request."""
MAX_BODY = 2_000_000
"""Bytes in the body of a request."""

BAD_REQUEST, UNAUTHORIZED = 400, 401

_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z")


class Endpoint(NamedTuple):
    """Fields of an item.

    Attributes:
        texts: Required fields with a text.
        objects: Optional fields with an object.
    """

    texts: tuple[str, ...]
    objects: tuple[str, ...]


ENDPOINTS = {
    "/track": Endpoint(("event_name", "user_id", "timestamp"), ("properties", "context")),
    "/identify": Endpoint(("user_id", "timestamp"), ("traits", "context")),
    "/group": Endpoint(("group_id", "user_id", "timestamp"), ("traits", "context")),
}


class ContractError(Exception):
    """A violation of the contract.

    Attributes:
        status: HTTP status of the answer.
        reason: Violation, without its place.
        item: Index of the faulty item; None for a fault of the whole request.
        field: Dotted name of the faulty field; None for a fault of the whole item.
    """

    def __init__(self, status: int, message: str, item: int | None = None, field: str | None = None) -> None:
        place = "" if item is None else f"item {item}: " + (f"field '{field}': " if field else "")
        super().__init__(place + message)
        self.status = status
        self.reason = message
        self.item = item
        self.field = field


def check_credentials(headers: Mapping[str, str]) -> None:
    """Raise ContractError without a key in `x-api-key` or a bearer token in `Authorization`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if not (headers.get("x-api-key", "").strip() or (scheme.lower() == "bearer" and token.strip())):
        raise ContractError(UNAUTHORIZED, "no credentials: send `x-api-key: KEY` or `Authorization: Bearer TOKEN`")


def check_size(size: int) -> None:
    """Raise ContractError if a body of so many bytes is too long."""
    if size > MAX_BODY:
        raise ContractError(BAD_REQUEST, f"the body has {size} bytes or more; at most {MAX_BODY} are allowed")


def parse(path: str, content_type: str, body: bytes) -> list[dict[str, Any]]:
    """Return the items of a request.

    Args:
        path: Endpoint: "/track", "/identify" or "/group".
        content_type: Content-Type header of the request.
        body: Body of the request.

    Raises:
        ContractError: At the first violation of the contract.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise ContractError(BAD_REQUEST, f"content-type must be application/json, not {content_type or 'missing'!r}")
    check_size(len(body))
    try:
        items = json.loads(body.decode(), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ContractError(BAD_REQUEST, f"the body is not JSON: {error}") from None
    if not isinstance(items, list):
        raise ContractError(BAD_REQUEST, "the body must be a JSON array, even for one item")
    if len(items) > MAX_ITEMS:
        raise ContractError(BAD_REQUEST, f"the array has {len(items)} items; at most {MAX_ITEMS} are allowed")
    for index, item in enumerate(items):
        _check_item(path, index, item)
    _check_texts(items)
    return items


def warnings(path: str, items: list[dict[str, Any]]) -> list[str]:
    """Return warnings for accepted items: unknown fields, and a missing account."""
    endpoint = ENDPOINTS[path]
    found: dict[str, None] = {}
    for item in items:
        for field in item.keys() - {*endpoint.texts, *endpoint.objects}:
            found[f"Field '{field}' is unknown and is ignored"] = None
        if path == "/track" and item["event_name"] != "signed_up" and not item.get("context", {}).get("group_id"):
            found["Field 'context.group_id' is missing and may affect account-level reports"] = None
    return list(found)


def _check_item(path: str, index: int, item: Any) -> None:
    if not isinstance(item, dict):
        raise ContractError(BAD_REQUEST, f"must be an object, not {_kind(item)}", index)
    endpoint = ENDPOINTS[path]
    for field in endpoint.texts:
        if field not in item:
            raise ContractError(BAD_REQUEST, "is required", index, field)
        if not isinstance(item[field], str) or not item[field]:
            raise ContractError(BAD_REQUEST, f"must be a text, not {_kind(item[field])}", index, field)
    for field in endpoint.objects:
        if not isinstance(item.get(field, {}), dict):
            raise ContractError(BAD_REQUEST, f"must be an object, not {_kind(item[field])}", index, field)
    _check_context(index, item.get("context", {}))
    _check_timestamp(index, item["timestamp"])
    if path == "/group":
        _check_group(index, item)


def _check_texts(items: list[dict[str, Any]]) -> None:
    try:
        json.dumps(items, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        for index, item in enumerate(items):
            _check_text(index, item)


def _check_text(index: int, item: dict[str, Any]) -> None:
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ContractError(BAD_REQUEST, "holds a lone surrogate, which is no text", index) from None
    except RecursionError:
        raise ContractError(BAD_REQUEST, "is nested too deeply", index) from None


def _check_context(index: int, context: dict[str, Any]) -> None:
    for field in ("group_id", "event_id"):
        if not isinstance(context.get(field, ""), str):
            message = f"must be a text, not {_kind(context[field])}"
            raise ContractError(BAD_REQUEST, message, index, f"context.{field}")


def _check_group(index: int, item: dict[str, Any]) -> None:
    if not item.get("traits", {}).get("group_type"):
        raise ContractError(BAD_REQUEST, "is required", index, "traits.group_type")
    if item.get("context", {}).get("group_id", item["group_id"]) != item["group_id"]:
        raise ContractError(BAD_REQUEST, "must equal the item's group_id", index, "context.group_id")


def _check_timestamp(index: int, text: str) -> None:
    try:
        date = datetime.fromisoformat(text[:-1]) if _TIMESTAMP.fullmatch(text) else None
    except ValueError:
        date = None
    if date is None:
        message = f"{text!r} is not of the form 2024-10-20T15:51:36.514000Z"
        raise ContractError(BAD_REQUEST, message, index, "timestamp")


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON value"
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        message = f"{text} is beyond the range of a number"
        raise ValueError(message)
    return number


def _kind(value: object) -> str:
    if value == "":
        return "an empty text"
    names = {dict: "an object", list: "an array", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
