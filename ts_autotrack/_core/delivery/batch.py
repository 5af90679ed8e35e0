"""Batch: the items of one request, and the words about one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import orjson

from ts_autotrack._core.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack._core.delivery.endpoint import Endpoint


class Batch(NamedTuple):
    """Items of one request.

    Attributes:
        endpoint: State of the endpoint.
        bodies: The items.
        through: Number of items at the front of the queue, up to the last one of the batch.
        passed: Positions of the items among these that are not in the batch.
    """

    endpoint: Endpoint
    bodies: list[bytes]
    through: int
    passed: Sequence[int]


def describe(path: str, body: bytes) -> str:
    """Return the name and the id of an item; its other contents may be confidential."""
    try:
        item = orjson.loads(body)
        name, number = item.get("event_name") or path, item["context"]["event_id"]
    except (ValueError, TypeError, LookupError, AttributeError):  # damaged on the disk
        return f"an item for {path}"
    return f"the event {printable(str(name))} for {path} with the id {printable(str(number))}"
