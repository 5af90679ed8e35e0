"""Tracked calls on the stack: the wrappers' frames, and the properties attached to calls in flight."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

current_frame = sys._getframe  # noqa: SLF001 - inspect.currentframe takes no depth, and inspect is heavy to import

additions: dict[FrameType, dict[str, Any]] = {}
"""Properties from `add_properties`, by the frame of the wrapper in flight.

A contextvar set and reset around each call would cost twice as much as the rest of the wrapper (200 ns against 140).
Few calls attach properties, so `add_properties` searches the stack instead.
"""
call_codes: set[CodeType] = set()
"""Code objects of the wrappers."""


def innermost_call(frame: FrameType | None) -> FrameType | None:
    """Return the wrapper's frame of the innermost tracked call around `frame`, awaiting callers included."""
    while frame is not None and frame.f_code not in call_codes:
        frame = frame.f_back
    return frame


def place(frame: FrameType) -> str:
    """Return the application's module and line of a frame, for messages."""
    return f"{frame.f_globals.get('__name__', '?')}, line {frame.f_lineno}"
