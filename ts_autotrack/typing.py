"""Types for code that uses ts_autotrack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from ts_autotrack._stats import Stats

__all__ = ["FeatureType", "FinishedCall", "Interface", "Outcome", "Properties", "Stats"]

FeatureType: TypeAlias = Literal["core", "sticky", "support", "secondary", "add-on"]
"""The vendor's kinds of feature; the last two are from its older reference."""
Interface: TypeAlias = Literal["api", "cli", "agent"]
"""The vendor's names for a surface that is not a browser."""
Outcome: TypeAlias = Literal["success", "error", "always"]
"""Which calls make an event."""


class FinishedCall(NamedTuple):
    """What a callable given as `properties=` gets to see.

    Attributes:
        args: The call's positional arguments, `self` included.
        kwargs: Its keyword arguments.
        result: What it returned; None if it raised.
        error: What it raised; None if it returned.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    error: BaseException | None


Properties: TypeAlias = Mapping[str, object] | Callable[[FinishedCall], Mapping[str, object]]
"""Properties of an event: the same for all calls, or made from each finished call."""
