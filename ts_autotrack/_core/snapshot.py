"""JSON forms of the application's values.

`snapshot` runs on the caller's path. Mutable values are copied, immutable values are kept by reference. The library
never calls `repr` on a user's object: a `repr` may raise, query a database or print a password.
"""

from __future__ import annotations

import sys
from binascii import b2a_base64
from collections import deque
from collections.abc import Mapping
from itertools import islice
from math import isfinite

from ts_autotrack._core.counters import AtomicCounter, MeteredDict
from ts_autotrack._core.diagnostics import warn_once

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    Form: TypeAlias = Callable[["_Copy", Any, int], Any]

MAX_DEPTH = 32
"""Levels of nested containers in one value."""
MAX_NODES = 10_000
"""Values copied for one value of the application."""
MAX_BYTES = 1_000_000
"""Bytes of one binary value."""
MAX_INT_BITS = 4_096
"""Bits of an integer sent as text."""
MAX_EXPONENT = 300
"""Decimal exponent of a Decimal sent as a number: the range of a double, roughly."""

UNCOUNTED_BYTES = 512
"""Bytes of an event's own properties below which the memory budget does not count them."""

INT_MIN, INT_MAX = -(2**63), 2**64 - 1
"""Integers sent as numbers: most JSON parsers lose digits of larger integers, or refuse the whole request."""
ENTRY_BYTES, VALUE_BYTES = 16, 64
"""Approximate bytes of a value in a tuple, and in a container, besides its characters."""

_NATIVE = frozenset({str, bool, type(None)})

placeholders = AtomicCounter()
"""Values replaced for lack of a JSON form."""


def snapshot(values: Mapping[Any, Any]) -> dict[str, object]:
    """Return a copy of `values` in JSON forms, safe from later mutation.

    Args:
        values: Keys to values of the application.

    Returns:
        A new dict of JSON-ready values. Strings are kept unchanged; the worker replaces lone surrogates.
    """
    copy: dict[str, object] = {}
    deep: _Copy | None = None
    length = 0
    for key, value in islice(values.items(), MAX_NODES):
        if type(key) is not str:
            deep = _Copy()
            copy = deep.mapping(values)
            break
        kind = type(value)
        if kind is str:
            copy[key] = value
            length += len(value) if value.isascii() else 4 * len(value)
        elif kind in _NATIVE or (kind is int and INT_MIN <= value <= INT_MAX):
            copy[key] = value
        else:
            deep = deep or _Copy()  # shared by all values: the bounds hold for the sum
            copy[key] = deep.guarded(value, 1)
    if len(copy) == MAX_NODES:
        copy["..."] = placeholder(f"more than {MAX_NODES} values")
    if deep is not None:
        length += deep.length
    length += VALUE_BYTES * len(copy) + sum(map(len, copy))
    return copy if length <= UNCOUNTED_BYTES else MeteredDict(copy, length)


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
    """Return the JSON form of `value`, or a counted placeholder. Never raises."""
    return _Copy().guarded(value, 0)


def placeholder(kind: str) -> str:
    """Count a value without a JSON form, warn once for its kind, and return its placeholder."""
    next(placeholders)
    warn_once(
        ("placeholder", kind),
        f"a value of kind {kind} has no JSON form; the event carries the text '<not JSON: {kind}>' instead. "
        "Pass a string, number, list or dict.",
    )
    return f"<not JSON: {kind}>"


def _name(value: object) -> str:
    kind = type(value)
    try:
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # noqa: BLE001 - a metaclass may raise even here
        return "object of a class without a name"


class _Copy:
    """State of one deep copy.

    Attributes:
        nodes: Values copied so far.
        length: Approximate bytes of the copied values.
        inside: Ids of the containers around the current value, to detect cycles.
    """

    __slots__ = ("inside", "length", "nodes")

    def __init__(self) -> None:
        self.nodes = 0
        self.length = 0
        self.inside: set[int] = set()

    def value(self, value: Any, depth: int) -> Any:
        self.nodes += 1
        self.length += VALUE_BYTES
        for kind, form in _FORMS:
            if isinstance(value, kind):
                return form(self, value, depth)
        for module, name, form in _LOADED_FORMS:
            # The module of a value's class is loaded already, so the search imports nothing.
            if (loaded := sys.modules.get(module)) and isinstance(value, getattr(loaded, name, ())):
                return form(self, value, depth)
        return self._by_protocol(value, depth)

    def _by_protocol(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if hasattr(kind, "model_dump"):  # pydantic 2
            return self.value(value.model_dump(mode="json"), depth)
        for fields in ("__dataclass_fields__", "__struct_fields__"):  # dataclasses, msgspec
            if hasattr(kind, fields):
                return self.mapping({name: getattr(value, name) for name in getattr(kind, fields)}, depth, value)
        if hasattr(kind, "__attrs_attrs__"):
            return self.mapping({f.name: getattr(value, f.name) for f in kind.__attrs_attrs__}, depth, value)
        if kind.__module__.partition(".")[0] == "numpy" and hasattr(kind, "tolist"):
            return self.value(value.tolist(), depth) if value.size <= MAX_NODES else placeholder(_name(value))
        return placeholder(_name(value))

    def mapping(self, value: Any, depth: int = 0, owner: object = None) -> dict[str, Any]:
        copy: dict[str, Any] = {}
        for key, item in self._enter(value.items(), value if owner is None else owner, depth):
            text = _key(key)
            while text in copy:  # {1: ..., "1": ...}: keep both
                text += "'"
            self.length += len(text)
            copy[text] = self.guarded(item, depth + 1)
        self.inside.discard(id(value if owner is None else owner))
        if len(copy) < len(value):
            copy["..."] = placeholder(f"more than {MAX_NODES} values")
        return copy

    def sequence(self, value: Any, depth: int) -> list[Any]:
        copy = [self.guarded(item, depth + 1) for item in self._enter(value, value, depth)]
        self.inside.discard(id(value))
        if len(copy) < len(value):
            copy.append(placeholder(f"more than {MAX_NODES} values"))
        return copy

    def _enter(self, items: Iterable[Any], owner: object, depth: int) -> Iterable[Any]:
        if id(owner) in self.inside:
            kind = "cycle"
            raise _UnsendableError(kind)
        if depth >= MAX_DEPTH:
            kind = f"nested deeper than {MAX_DEPTH}"
            raise _UnsendableError(kind)
        self.inside.add(id(owner))
        return islice(items, max(0, MAX_NODES - self.nodes))

    def guarded(self, value: Any, depth: int) -> Any:
        """Return the JSON form of a value; a fault inside a container costs the value, not the container."""
        try:
            return self.value(value, depth)
        except _UnsendableError as error:
            return placeholder(str(error))
        except Exception as error:  # noqa: BLE001 - a user's property, iterator or model may raise anything
            return placeholder(f"{_name(value)}: {type(error).__name__}")


class _UnsendableError(Exception):
    """The container cannot be copied; the message is the placeholder's kind."""


def _text(copy: _Copy, value: str, _: int) -> str:
    plain = str.__str__(value)
    copy.length += len(plain) if plain.isascii() else 4 * len(plain)
    try:
        plain.encode()
    except UnicodeEncodeError:
        next(placeholders)
        return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return plain


def _integer(_: _Copy, value: int, __: int) -> int | str:
    plain = int(value)
    if INT_MIN <= plain <= INT_MAX:
        return plain
    return str(plain) if plain.bit_length() <= MAX_INT_BITS else placeholder(f"int of more than {MAX_INT_BITS} bits")


def _float(_: _Copy, value: float, __: int) -> float | str:
    return float(value) if isfinite(value) else placeholder(f"float {float(value)}")


def _binary(copy: _Copy, value: bytes | bytearray, _: int) -> str:
    copy.length += len(value)
    if len(value) > MAX_BYTES:
        return placeholder(f"binary of more than {MAX_BYTES} bytes")
    return b2a_base64(value, newline=False).decode("ascii")


def _decimal(_: _Copy, value: Any, __: int) -> Any:
    if not value.is_finite():
        return placeholder(f"Decimal {value}")
    # A number, because the vendor's `revenue` and `value` are numbers; the encoder writes the exact digits.
    plain = sys.modules["decimal"].Decimal(value)  # a subclass may have another text form
    return plain if abs(plain.adjusted()) <= MAX_EXPONENT else str(plain)


def _key(key: Any) -> str:
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, float):
        return str(key)
    plain = to_json(key)
    return plain if isinstance(plain, str) else str(plain)


_FORMS: tuple[tuple[type | tuple[type, ...], Form], ...] = (
    ((bool, type(None)), lambda _, value, __: value if type(value) in _NATIVE else placeholder(_name(value))),
    (str, _text),
    (int, _integer),
    (float, _float),
    (Mapping, lambda copy, value, depth: copy.mapping(value, depth)),
    ((list, tuple, set, frozenset, deque), lambda copy, value, depth: copy.sequence(value, depth)),
    ((bytes, bytearray), _binary),
)
_LOADED_FORMS: tuple[tuple[str, str, Form], ...] = (
    ("enum", "Enum", lambda copy, value, depth: copy.value(value.value, depth)),
    ("datetime", "timedelta", lambda _, value, __: value.total_seconds()),
    ("datetime", "datetime", lambda _, value, __: value.isoformat()),
    ("datetime", "date", lambda _, value, __: value.isoformat()),
    ("datetime", "time", lambda _, value, __: value.isoformat()),
    ("uuid", "UUID", lambda _, value, __: str(value)),
    ("decimal", "Decimal", _decimal),
    ("pathlib", "PurePath", lambda copy, value, depth: _text(copy, str(value), depth)),
)
