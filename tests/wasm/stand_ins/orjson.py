"""Stand-in for orjson, which is written in Rust and has no wheel for WebAssembly: the same calls, on top of `json`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

JSONDecodeError = json.JSONDecodeError


class JSONEncodeError(TypeError):
    """A value that cannot be written."""


class Fragment(str):
    """JSON to be written as it is."""

    __slots__ = ()


_FRAGMENT = re.compile(r'"\\u0000(.*?)\\u0000"')
loads = json.loads


def dumps(value: object, default: Callable[[Any], Any] | None = None) -> bytes:
    """Return a value's JSON."""

    def unknown(found: object) -> object:
        if default is None:
            raise TypeError
        other = default(found)
        return f"\0{other}\0" if isinstance(other, Fragment) else other

    try:
        text = json.dumps(value, default=unknown, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return _FRAGMENT.sub(r"\1", text).encode()
    except (TypeError, ValueError) as error:
        raise JSONEncodeError from error
