"""Tracked calls on the stack, and the properties attached to calls in flight."""

from __future__ import annotations

import os
import sys
from _thread import get_ident

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType
    from typing import Any

current_frame = sys._getframe  # noqa: SLF001 - inspect.currentframe takes no depth, and inspect is heavy to import

FILENAME = "<ts_autotrack call>"
"""File name of the wrappers' code."""
MAX_FRAMES = 200
"""Frames that `add_properties` searches for its call: 25 us at most. A stack of 900 frames would take 110 us."""

additions: dict[int, tuple[int, CodeType, dict[str, Any]]] = {}
"""Thread, code and properties from `add_properties`, by the id of the frame of the tracked call in flight.

A contextvar set and reset around each call would cost twice as much as the rest of the wrapper (200 ns against 140).
Few calls attach properties, so `add_properties` searches the stack instead. By id, because a frame keeps its arguments
alive, and an abandoned coroutine would never be collected. Every tracked call takes its properties out at its end. A
watched call may end unseen, and a later frame may have its id: the code of the frame excludes other functions, and
`following.started` excludes earlier calls of the same function.
"""
_TOOLS = {"contextlib", "opentelemetry", "ts_autotrack"}
"""Packages whose lines name no place in the application."""
_EVERY_CALL = 0
"""Key in `additions` that is no id of a frame, and no id of a thread."""
watched_codes: set[int] = set()
"""Ids of the code of watched functions. The hash of a code object covers all of it."""
followed: dict[int, Any] = {}
"""`Followed` work in flight, by the id of its frame."""


def innermost_call(frame: FrameType | None) -> FrameType | None:
    """Return the frame of the innermost tracked call around `frame`, awaiting callers included.

    None if there is no such call in the `MAX_FRAMES` innermost frames, or in this task: a task that an event loop runs
    inside a tracked call does not belong to the call.
    """
    outermost = task_frame()
    for _ in range(MAX_FRAMES):
        if frame is None or frame.f_code.co_filename == FILENAME:
            return frame
        if id(frame.f_code) in watched_codes or (id(frame) in followed and followed[id(frame)].is_of(frame)):
            return frame
        if frame is outermost:
            return None
        frame = frame.f_back
    return None


def current_task() -> Any:
    """Return the current task of asyncio or trio; None outside of tasks."""
    for module, submodule in (("asyncio", "tasks"), ("trio", "lowlevel")):
        find = getattr(getattr(sys.modules.get(module), submodule, None), "current_task", None)
        if find is not None:
            try:
                task = find()
            except Exception:  # noqa: BLE001, S112 - no event loop runs in this thread
                continue
            if task is not None:
                return task
    return None


def task_frame() -> FrameType | None:
    """Return the frame of the coroutine that the current task runs; None outside of tasks."""
    task = current_task()
    try:
        frame: FrameType | None = (task.coro if hasattr(task, "coro") else task.get_coro()).cr_frame
    except Exception:  # noqa: BLE001 - no task, or a task of another event loop
        return None
    return frame


def attach(
    call: FrameType,
    properties: dict[str, Any],
    merge: Callable[[dict[str, Any] | None, dict[str, Any]], dict[str, Any]],
) -> None:
    """Attach properties to the tracked call of a frame; the call takes them at its end."""
    earlier = take_additions(id(call), call.f_code)
    additions[id(call)] = get_ident(), call.f_code, merge(earlier, properties)


def take_additions(frame_id: int, code: CodeType) -> dict[str, Any] | None:
    """Return the properties attached to the call of a frame, and forget them."""
    entry = additions.pop(frame_id, None)
    return entry[2] if entry is not None and entry[1] is code else None


def _keep_own_additions() -> None:
    """Forget the calls of other threads in a forked child: these calls never end there."""
    own = get_ident()
    for frame, (thread, *_) in list(additions.items()):
        if thread not in (own, _EVERY_CALL):
            del additions[frame]


def every_call(on: bool) -> None:  # noqa: FBT001 - the only argument
    """Send every call through `finish_call`, as calls with attached properties; no capture then appends directly."""
    if on:
        additions[_EVERY_CALL] = _EVERY_CALL, every_call.__code__, {}
    else:
        additions.pop(_EVERY_CALL, None)


def place(frame: FrameType) -> str:
    """Return the application's module and line, for messages: of a frame, or of the nearest caller outside of tools.

    OpenTelemetry ends a span, and this library makes the span's event, in calls of their own.
    """
    outside: FrameType | None = frame
    while outside is not None and _module(outside).partition(".")[0] in _TOOLS:
        outside = outside.f_back
    found = outside or frame
    return f"{_module(found)}, line {found.f_lineno}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_keep_own_additions)
