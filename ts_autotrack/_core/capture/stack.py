"""Tracked calls on the stack: the wrappers' frames, and the properties attached to calls in flight."""

from __future__ import annotations

import os
import sys
from _thread import get_ident

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

current_frame = sys._getframe  # noqa: SLF001 - inspect.currentframe takes no depth, and inspect is heavy to import

MAX_FRAMES = 200
"""Frames that `add_properties` searches for its call: 25 us at most. A stack of 900 frames would take 110 us."""

additions: dict[int, tuple[int, dict[str, Any]]] = {}
"""Thread and properties from `add_properties`, by the id of the frame of the wrapper in flight.

A contextvar set and reset around each call would cost twice as much as the rest of the wrapper (200 ns against 140).
Few calls attach properties, so `add_properties` searches the stack instead. By id, because a frame keeps its arguments
alive, and an abandoned coroutine would never be collected. Every wrapper takes its properties out at its end.
"""
call_codes: set[int] = set()
"""Ids of the wrappers' code objects, which live as long as this package. The hash of a code object covers all of it."""


def innermost_call(frame: FrameType | None) -> FrameType | None:
    """Return the wrapper's frame of the innermost tracked call around `frame`, awaiting callers included.

    None if there is no such call in the `MAX_FRAMES` innermost frames.
    """
    for _ in range(MAX_FRAMES):
        if frame is None or id(frame.f_code) in call_codes:
            return frame
        frame = frame.f_back
    return None


def take_additions(frame: FrameType) -> dict[str, Any] | None:
    """Return the properties attached to a call, and forget them."""
    thread_and_properties = additions.pop(id(frame), None)
    return thread_and_properties and thread_and_properties[1]


def _keep_own_additions() -> None:
    """Forget the calls of other threads in a forked child: these calls never end there."""
    own = get_ident()
    for frame, (thread, _) in list(additions.items()):
        if thread != own:
            del additions[frame]


def place(frame: FrameType) -> str:
    """Return the application's module and line of a frame, for messages."""
    return f"{frame.f_globals.get('__name__', '?')}, line {frame.f_lineno}"


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_keep_own_additions)
