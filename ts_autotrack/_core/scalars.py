"""JSON forms of texts, numbers and binary values, and of values of subclasses: no method of a subclass runs."""

from __future__ import annotations

from binascii import b2a_base64

from ts_autotrack._core.forms import UnsendableError

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Budget(Protocol):
        """Bound of the work and bytes for one event."""

        left: int
        bytes_left: int
        length: int


MAX_BYTES = 1_000_000
"""Bytes of the binary values of one event, and of its texts that are of a class of their own; 1 MB takes 1 ms."""
MAX_INT_BITS = 4_096
"""Bits of an integer sent as text."""
MAX_EXPONENT = 300
"""Decimal exponent of a Decimal sent as a number: the range of a double, roughly."""
MAX_DECIMAL_BYTES = 4_000
"""Bytes of a Decimal in memory: about 9,000 digits."""

INT_MIN, INT_MAX = -(2**63), 2**64 - 1
"""Integers sent as numbers: most JSON parsers lose digits of larger integers, or refuse the whole request."""
INFINITY = float("inf")


def _constant(_: Budget, value: object, __: type) -> object:
    return value


def _text(budget: Budget, value: str, _: type) -> str:
    length = str.__len__(value)
    if type(value) is not str:
        if length > budget.bytes_left:
            kind = f"text of more than {MAX_BYTES} characters"
            raise UnsendableError(kind)
        budget.bytes_left -= length
        value = str.__str__(value)
    budget.length += length if value.isascii() else 4 * length
    return value


def _integer(budget: Budget, value: int, __: type) -> int | str:
    if int.bit_length(value) > MAX_INT_BITS:
        kind = f"int of more than {MAX_INT_BITS} bits"
        raise UnsendableError(kind)
    plain = int.__index__(value)
    if INT_MIN <= plain <= INT_MAX:
        return plain
    budget.left -= int.bit_length(value) // 16  # 4,000 bits take 18 us
    return str(plain)


def _float(_: Budget, value: float, __: type) -> float:
    plain = float.__float__(value)
    if not -INFINITY < plain < INFINITY:
        kind = f"float {plain}"
        raise UnsendableError(kind)
    return plain


def _binary(budget: Budget, value: Any, base: Any) -> str:
    size = value.nbytes if base is memoryview else base.__len__(value)
    if size > budget.bytes_left:
        kind = f"binary of more than {MAX_BYTES} bytes"
        raise UnsendableError(kind)
    budget.bytes_left -= size
    budget.length += 4 * size // 3
    return b2a_base64(value.tobytes() if base is memoryview else value, newline=False).decode("ascii")


def decimal_value(budget: Budget, value: Any, base: Any) -> Any:
    """Return a Decimal as a Decimal, because the vendor's `revenue` is a number: the encoder writes the exact digits.

    Args:
        budget: Counts the bytes.
        value: Decimal, or an object of a subclass.
        base: The class Decimal.
    """
    size = base.__sizeof__(value)
    if size > MAX_DECIMAL_BYTES:
        kind = f"Decimal of more than {MAX_DECIMAL_BYTES} bytes"
        raise UnsendableError(kind)
    if not base.is_finite(value):
        name = base.number_class(value) if base.is_nan(value) else base.__str__(value)
        kind = f"Decimal {name}"
        raise UnsendableError(kind)
    budget.length += size
    budget.left -= size // 16  # 4,000 bytes take 15 us
    plain = base(value)  # a subclass may have another text form
    return plain if abs(plain.adjusted()) <= MAX_EXPONENT else base.__str__(plain)


SCALARS: dict[Any, Callable[[Budget, Any, Any], Any]] = {
    type(None): _constant,
    bool: _constant,
    str: _text,
    int: _integer,
    float: _float,
    bytes: _binary,
    bytearray: _binary,
    memoryview: _binary,
}
"""Forms by class."""
