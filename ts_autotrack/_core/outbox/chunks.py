"""Chunks: items of one endpoint, stored as one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ts_autotrack._core.contract import MAX_BODY, MAX_ITEMS

if TYPE_CHECKING:
    from ts_autotrack._core.delivery.queue import Item

SEPARATOR = b",\n"
"""Bytes between two items of a chunk. Encoded JSON holds no line break, so a chunk is split without parsing."""


class Chunk(NamedTuple):
    """Items of one endpoint, committed together."""

    id: int
    path: str
    first: int
    items: list[bytes]


def split_into_chunks(items: list[Item]) -> list[list[Item]]:
    """Split items at each change of the endpoint and wherever a chunk is full."""
    runs: list[list[Item]] = []
    endpoint, size = None, 0
    for item in items:
        path, body, _ = item
        size += len(body) + len(SEPARATOR)
        if path != endpoint or size > MAX_BODY or len(runs[-1]) == MAX_ITEMS:
            runs.append([])
            endpoint, size = path, len(body) + len(SEPARATOR)
        runs[-1].append(item)
    return runs
