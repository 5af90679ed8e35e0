"""Users that a generator in flight has named itself by `bind_user`: its events belong to them, wherever it ends.

The event of a function or coroutine goes to the user acting at its end, since the end is in its own context. A
generator, and a block inside a generator, may end in another user's context. So the user at the beginning decides,
unless the generator itself has named another one.
"""

from __future__ import annotations

from ts_autotrack._core.callables import CO_ASYNC_GENERATOR, CO_GENERATOR
from ts_autotrack._core.capture.stack import FILENAME, MAX_FRAMES, attach, followed, task_frame
from ts_autotrack._core.identity import user_context as identity

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType

    from ts_autotrack._core.identity.scope import BlockEntry, Scope

bindings: dict[int, tuple[CodeType, BlockEntry | None, Scope]] = {}
"""Code, enclosing block and scope of bindings made inside a generator in flight, by the id of its frame."""
open_blocks: dict[int, int] = {}
"""Numbers of open `with track_feature(...)` blocks inside a generator, by the id of its frame."""


def is_generator(code: CodeType) -> bool:
    """Return True for the code of a generator or async generator."""
    return bool(code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))


def note_binding(frame: FrameType | None, scope: Scope) -> None:
    """Note a binding made by `frame` for each tracked generator around it in flight."""
    outermost, resolved = task_frame(), None
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        if is_generator(frame.f_code):
            number, is_wrapper = id(frame), frame.f_code.co_filename == FILENAME
            work = followed.get(number)
            if is_wrapper or number in open_blocks or (work is not None and work.is_of(frame)):
                resolved = resolved or scope.resolve()
                bindings[number] = frame.f_code, scope.entry, resolved
                if is_wrapper:
                    attach(frame, {}, lambda earlier, _: earlier or {})  # its end looks for attached properties only
        if frame is outermost:
            return
        frame = frame.f_back


def own_scope(start: Scope, frame_id: int, code: CodeType) -> Scope:
    """Return the scope that a generator has bound itself, or else `start`, its scope at the beginning."""
    noted = bindings.pop(frame_id, None)
    if noted is None or noted[0] is not code:
        return start
    _, entry, scope = noted
    is_in_force = entry is start.entry or (entry is not None and entry.block is not None and not entry.closed)
    return scope if is_in_force else start


identity.on_bind = note_binding
