"""JSON forms of the application's values.

`snapshot` runs on the caller's path. Mutable values are copied, immutable values are kept by reference; `forms` reads
all other objects. No copy takes longer than about a millisecond, whatever is given: `MAX_NODES` bounds the work.
"""

from __future__ import annotations

import sys
from itertools import islice, takewhile

from ts_autotrack._core.counters import MeteredDict
from ts_autotrack._core.deep_copy import MAX_NODES, NATIVE, TOO_MANY, VALUE_BYTES, DeepCopy, placeholder, placeholders
from ts_autotrack._core.forms import UnsendableError, class_name, is_request
from ts_autotrack._core.scalars import INFINITY, INT_MAX, INT_MIN

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

__all__ = [
    "MAX_NODES",
    "UNCOUNTED_BYTES",
    "copied",
    "has_items",
    "placeholders",
    "plain_values",
    "shallow",
    "size_of",
    "snapshot",
    "to_json",
]

RESERVE = 1_000
"""Work for marks in place of the values beyond `MAX_NODES`."""
UNCOUNTED_BYTES = 512
"""Bytes of an event's own properties below which the memory budget does not count them."""
ENTRY_BYTES = 16
"""Approximate bytes of a value in a tuple, besides its characters."""


def snapshot(values: Mapping[Any, Any]) -> dict[str, object]:
    """Return a copy of `values` in JSON forms, safe from later mutation, and counted if it is long. Never raises.

    Args:
        values: Keys to values of the application.

    Returns:
        A new dict of JSON-ready values. Strings are kept unchanged; the worker replaces lone surrogates.
    """
    copy, length = copied(values)
    return copy if length <= UNCOUNTED_BYTES else MeteredDict(copy, length)


def copied(values: Mapping[Any, Any]) -> tuple[dict[str, object], int]:
    """Return a copy of `values` in JSON forms, and its approximate bytes. Never raises."""
    if type(values) is not dict or len(values) > MAX_NODES:
        return _copied_at_length(values)
    copy: dict[str, Any] = values.copy()  # in one step: another thread may change the dict meanwhile
    deep: DeepCopy | None = None
    length = VALUE_BYTES * len(copy)
    for key, value in copy.items():
        if type(key) is not str:
            return _copied_at_length(copy)
        length += len(key)
        kind = type(value)
        if kind is str:
            length += len(value) if value.isascii() else 4 * len(value)
        elif not (
            kind in NATIVE
            or (kind is int and INT_MIN <= value <= INT_MAX)
            or (kind is float and -INFINITY < value < INFINITY)
        ):
            if deep is None:
                if is_request(copy):  # carries credentials
                    return {"...": placeholder("request")}, VALUE_BYTES
                deep = DeepCopy()  # shared by all values: the bounds hold for the sum
            elif deep.left <= -RESERVE:
                return _cut(copy, key), length + deep.length
            copy[key] = deep.guarded(value, 1)
    return copy, length if deep is None else length + deep.length


def _cut(copy: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the entries before a key, and a mark."""
    kept = dict(takewhile(lambda entry: entry[0] is not key, copy.items()))
    kept["..."] = placeholder(TOO_MANY)
    return kept


def _copied_at_length(values: Any) -> tuple[dict[str, object], int]:
    deep = DeepCopy()
    try:
        if not issubclass(type(values), dict):
            values = dict(islice(values.items(), MAX_NODES + 1))
        if is_request(values):
            return {"...": placeholder("request")}, VALUE_BYTES
        return deep.mapping(values, dict, 0), deep.length
    except UnsendableError as error:
        kind = str(error)
    except Exception as error:  # noqa: BLE001 - the application's mapping may raise anything
        kind = f"{class_name(values)}: {type(error).__name__}"
    return {"...": placeholder(kind)}, VALUE_BYTES


def has_items(values: object) -> bool:
    """Return True for a mapping. Never raises."""
    try:
        return issubclass(type(values), dict) or hasattr(values, "items")
    except Exception:  # noqa: BLE001 - the application's object
        return False


def shallow(values: object) -> dict[Any, Any] | None:
    """Return the first entries of a mapping, unchanged; None if `values` is no mapping that can be read."""
    try:
        if type(values) is dict and len(values) <= MAX_NODES:
            return values.copy()
        items = dict.items(values) if issubclass(type(values), dict) else values.items()  # type: ignore[attr-defined, arg-type]
        return dict(islice(items, MAX_NODES + 1))
    except Exception:  # noqa: BLE001 - the application's mapping may raise anything
        return None


def plain_values(values: Iterable[object]) -> tuple[object, ...] | None:
    """Return the values as a tuple; None if a value needs a copy, or the memory budget has to count the values."""
    plain = tuple(values)
    length = ENTRY_BYTES * len(plain)
    for value in plain:
        kind = type(value)
        if kind is str:
            length += len(value) if value.isascii() else 4 * len(value)  # type: ignore[attr-defined, arg-type]
        elif not (kind is bool or value is None or (kind is int and INT_MIN <= value <= INT_MAX)):  # type: ignore[operator]
            return None
    return plain if length <= UNCOUNTED_BYTES else None


def to_json(value: object) -> Any:
    """Return the JSON form of a snapshot that the encoder cannot write: with its lone surrogates replaced."""
    return DeepCopy(10 * MAX_NODES, mend=True).guarded(value, 0)


def size_of(value: Any) -> int:
    """Return the approximate bytes of a JSON form in memory."""
    kind = type(value)
    if kind is str:
        return VALUE_BYTES + (len(value) if value.isascii() else 4 * len(value))
    if kind is list:
        return VALUE_BYTES + sum(map(size_of, value))
    if issubclass(kind, dict):
        return VALUE_BYTES + sum(len(key) + size_of(inner) for key, inner in value.items())
    return VALUE_BYTES if kind in (int, float) or kind in NATIVE else sys.getsizeof(value)
