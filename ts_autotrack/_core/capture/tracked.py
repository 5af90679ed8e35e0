"""is_tracked: True for callables that `track_feature` has decorated."""

from __future__ import annotations

import sys
from types import FunctionType

from ts_autotrack._core.callables import MAX_WRAPPERS, attribute
from ts_autotrack._core.capture.stack import FILENAME, watched_codes

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Any


def is_tracked(target: object, /) -> bool:
    """Return True if calls of a callable make the event of a `track_feature` decorator. Never raises.

    Decorators of other libraries around the tracked function are looked through, if they use `functools.wraps`;
    partials and bound methods likewise. Integrations ask this before they make an event of their own for the call.

    Args:
        target: The callable; any other object is not tracked.

    Example:
        >>> from ts_autotrack import is_tracked, track_feature
        >>> @track_feature("report_export")
        ... def export(): ...
        >>> is_tracked(export), is_tracked(print)
        (True, False)
    """
    found: Any = target
    for _ in range(MAX_WRAPPERS):
        if found is None:
            return False
        if _is_decorated(found):
            return True
        found = next(
            (inner for name in ("__func__", "__wrapped__", "func") if (inner := attribute(found, name)) is not None),
            None,
        )
    return False


def _is_decorated(target: Any) -> bool:
    """Return True for a watched function, a wrapper or a proxy of this library."""
    if type(target) is FunctionType:
        code = target.__code__
        return id(code) in watched_codes or code.co_filename == FILENAME
    proxy = getattr(sys.modules.get("ts_autotrack._core.proxy"), "Proxy", None)
    return proxy is not None and issubclass(type(target), proxy)
