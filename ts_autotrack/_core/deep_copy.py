"""The deep copy of one event's values, within bounds that hold for all of them together."""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import isfinite

from ts_autotrack._core.counters import AtomicCounter
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.forms import UnsendableError, class_name, form_of, is_request
from ts_autotrack._core.scalars import INFINITY, INT_MAX, INT_MIN, MAX_BYTES, SCALARS, decimal_value

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ts_autotrack._core.forms import Simplify

MAX_DEPTH = 32
"""Levels of nested containers in one value."""
MAX_NODES = 10_000
"""Values copied for one event, if all values of a container are of one plain kind; 10,000 take half a millisecond.

Other values take longer and count more.
"""
NODE_COST, PAIR_COST, ITEM_COST = 30, 4, 2
"""Plain values that take the time of an object or placeholder, of an entry of a mixed dict, and of a mixed list."""
MAX_KEY_BYTES = 10_000
"""Approximate bytes of a key that is no text."""

VALUE_BYTES = 64
"""Approximate bytes of a value in a container, besides its characters."""

NATIVE = frozenset({str, bool, type(None)})
"""Classes of values that JSON has without exception."""
TOO_MANY = f"more than {MAX_NODES} values"

placeholders = AtomicCounter()
"""Values replaced for lack of a JSON form."""


def placeholder(kind: str) -> str:
    """Count a value without a JSON form, warn once for its kind, and return its placeholder."""
    next(placeholders)
    warn_once(
        ("placeholder", kind),
        f"a value of kind {kind} has no JSON form; the event carries the text '<not JSON: {kind}>' instead. "
        "Pass a string, number, list or dict.",
    )
    return f"<not JSON: {kind}>"


class DeepCopy:
    """State of one deep copy.

    Attributes:
        left: Plain values that may still be copied.
        bytes_left: Bytes of binary values that may still be copied.
        length: Approximate bytes of the copied values.
        inside: Ids of the objects around the current value, to detect cycles.
        mend: True to replace lone surrogates.
    """

    __slots__ = ("bytes_left", "inside", "left", "length", "mend")

    def __init__(self, left: int = MAX_NODES, *, mend: bool = False) -> None:
        self.left = left
        self.bytes_left = MAX_BYTES
        self.length = 0
        self.inside: set[int] = set()
        self.mend = mend

    def guarded(self, value: Any, depth: int) -> Any:
        """Return the JSON form of a value; a fault inside a container costs the value, not the container."""
        self.length += VALUE_BYTES
        try:
            return self.value(value, depth)
        except UnsendableError as error:
            kind = str(error)
        except Exception as error:  # noqa: BLE001 - a time zone, a serializer or a metaclass may raise anything
            kind = f"{class_name(value)}: {type(error).__name__}"
        self.left -= NODE_COST
        return placeholder(kind)

    def value(self, value: Any, depth: int) -> Any:
        """Return the JSON form of a value."""
        self.left -= NODE_COST
        kind = base = type(value)
        if kind not in _CONTAINERS and kind not in SCALARS:
            base, simplify = form_of(kind)
            if simplify is not None:
                return self.simpler(value, base, simplify, depth)
        if (container := _CONTAINERS.get(base)) is not None:  # without any work left, of no values but the mark
            return container(self, value, base, depth)
        if self.left < 0:
            raise UnsendableError(TOO_MANY)
        plain = SCALARS.get(base, decimal_value)(self, value, base)
        return self.mended(plain) if self.mend and type(plain) is str else plain

    def simpler(self, value: Any, base: type, simplify: Simplify, depth: int) -> Any:
        """Return the JSON form of an object that has a simpler form."""
        if self.left < 0:
            raise UnsendableError(TOO_MANY)
        self.enter(value, depth)
        try:
            return self.value(simplify(value, base, self), depth)
        finally:
            self.inside.discard(id(value))

    @staticmethod
    def mended(text: str) -> str:
        """Return a text with its lone surrogates replaced."""
        try:
            text.encode()
        except UnicodeEncodeError:
            next(placeholders)
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    def enter(self, value: object, depth: int) -> None:
        """Note that the next values are inside this object."""
        if id(value) in self.inside:
            kind = "cycle"
            raise UnsendableError(kind)
        if depth >= MAX_DEPTH:
            kind = f"nested deeper than {MAX_DEPTH}"
            raise UnsendableError(kind)
        self.inside.add(id(value))

    def mapping(self, original: Any, _: type, depth: int) -> dict[str, Any]:
        """Return the copy of a dict."""
        value: dict[Any, Any] = original
        if is_request(value):
            kind = "request"
            raise UnsendableError(kind)
        self.enter(value, depth)
        copy: dict[str, Any] = {}
        doubles: dict[str, int] = {}
        if type(value) is dict and len(value) <= self.left and not self.mend:  # `dict.copy` would call a subclass
            value = value.copy()  # in one step: another thread may change the dict meanwhile
            if set(map(type, value)) == {str} and _are_plain(plain := list(value.values())):
                self.inside.discard(id(original))
                self.left -= len(plain)
                self.length += sum(map(len, value)) + self.plain_size(plain)
                return value
        for key, item in _first(dict.items(value), value, dict, max(0, self.left)):
            if self.left <= 0:
                break
            self.left -= PAIR_COST
            text = key if type(key) is str and not self.mend else self.key(key, depth)
            if text in copy:  # {1: ..., "1": ...}: keep both
                text = _another(text, copy, doubles)
            self.length += len(text)
            copy[text] = self.item(item, depth)
        self.inside.discard(id(original))
        if len(copy) < dict.__len__(value):
            copy["..."] = placeholder(TOO_MANY)
        return copy

    def sequence(self, value: Any, base: Any, depth: int) -> list[Any]:
        """Return the copy of a list, tuple, set, frozenset or deque."""
        self.enter(value, depth)
        copy: list[Any] = []
        items = _first(base.__iter__(value), value, base, max(0, self.left))
        if not self.mend and _are_plain(items):
            copy = items
            self.left -= len(copy)
            self.length += self.plain_size(copy)
            items = []
        for item in items:
            if self.left <= 0:
                break
            self.left -= ITEM_COST
            copy.append(self.item(item, depth))
        self.inside.discard(id(value))
        if len(copy) < base.__len__(value):
            copy.append(placeholder(TOO_MANY))
        return copy

    def item(self, value: Any, depth: int) -> Any:
        """Return the JSON form of a value inside a container."""
        kind = type(value)
        if kind in NATIVE:
            if kind is str:
                if self.mend:
                    return self.guarded(value, depth + 1)
                self.length += len(value) if value.isascii() else 4 * len(value)
        elif not ((kind is int and INT_MIN <= value <= INT_MAX) or (kind is float and -INFINITY < value < INFINITY)):
            return self.guarded(value, depth + 1)
        self.length += VALUE_BYTES
        return value

    @staticmethod
    def plain_size(values: list[Any]) -> int:
        """Return the approximate bytes of values that are all plain."""
        length = VALUE_BYTES * len(values)
        if values and type(values[0]) is str:
            length += sum(len(value) if value.isascii() else 4 * len(value) for value in values)
        return length

    def key(self, key: Any, depth: int) -> str:
        """Return a key as text."""
        if type(key) is float:
            self.left -= NODE_COST
            return str(key)
        left, length = self.left, self.length
        plain = self.guarded(key, depth + 1)
        if type(plain) is str:
            return plain
        if plain is None or type(plain) is bool:
            return {None: "null", True: "true", False: "false"}[plain]
        if self.length - length > MAX_KEY_BYTES:
            return placeholder(f"key of more than {MAX_KEY_BYTES} bytes")
        self.left -= left - self.left  # `str` takes as long as the copy
        return str(plain)


def _are_plain(values: list[Any]) -> bool:
    """Return True for values that are all texts, all numbers JSON has, or all booleans: a copy takes no loop."""
    kinds = set(map(type, values))
    if kinds <= {int}:
        return not values or (min(values) >= INT_MIN and max(values) <= INT_MAX)
    return kinds in ({str}, {bool}) or (kinds == {float} and all(map(isfinite, values)))


def _first(items: Iterable[Any], value: Any, base: Any, most: int) -> list[Any]:
    """Return the first entries of a container, read in one step: another thread may change it meanwhile."""
    if base is list or base is tuple:
        return list(base.__getitem__(value, slice(most)))
    try:
        return list(islice(items, most))
    except RuntimeError:  # a finalizer changed the container
        if type(value) is not base:
            raise
        return list(islice(value.copy().items() if base is dict else value.copy(), most))


def _another(text: str, taken: dict[str, Any], doubles: dict[str, int]) -> str:
    """Return a text like `text` that is not taken: with `'`, then `'2`, `'3` and so on."""
    number = doubles.get(text, 0)
    while True:
        number += 1
        other = f"{text}'{number}" if number > 1 else f"{text}'"
        if other not in taken:
            doubles[text] = number
            return other


_CONTAINERS: dict[Any, Callable[[DeepCopy, Any, Any, int], Any]] = {
    dict: DeepCopy.mapping,
    list: DeepCopy.sequence,
    tuple: DeepCopy.sequence,
    set: DeepCopy.sequence,
    frozenset: DeepCopy.sequence,
    deque: DeepCopy.sequence,
}
