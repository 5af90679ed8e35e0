"""Users that a generator in flight has named itself by `bind_user`: its events belong to them, wherever it ends.

The event of a function or coroutine goes to the user acting at its end, since the end is in its own context. A
generator, and a block inside a generator, may end in another user's context. So the user at the beginning decides,
unless the generator itself has named another one.
"""

from __future__ import annotations

from ts_autotrack._core.callables import CO_ASYNC_GENERATOR, CO_GENERATOR
from ts_autotrack._core.capture.spans import Beginning
from ts_autotrack._core.capture.stack import FILENAME, MAX_FRAMES, attach, followed, task_frame
from ts_autotrack._core.identity import user_context as identity

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType

    from ts_autotrack._core.identity.scope import BlockEntry, Scope


class Binding:
    """The last binding that a generator has made itself since its beginning, or since the beginning of a block inside.

    Attributes:
        code: Code of the generator.
        made: Enclosing block and scope of the binding; None without a binding.
    """

    __slots__ = ("code", "made")

    def __init__(self, code: CodeType) -> None:
        self.code = code
        self.made: tuple[BlockEntry | None, Scope] | None = None

    def decide(self, start: Scope | Beginning) -> Scope | Beginning:
        """Return the bound scope, as long as its block is open; or else `start`, the scope at the beginning."""
        if self.made is None:
            return start
        entry, scope = self.made
        is_in_force = entry is start.entry or (entry is not None and entry.block is not None and not entry.closed)
        if not is_in_force:
            return start
        return Beginning(scope, start.span) if isinstance(start, Beginning) else scope


bindings: dict[int, Binding] = {}
"""Bindings of tracked generators in flight, by the id of the frame. Only generators that have bound a user are here."""
open_blocks: dict[int, list[Binding]] = {}
"""Bindings of open `with track_feature(...)` blocks inside a generator, by the id of its frame."""


def is_generator(code: CodeType) -> bool:
    """Return True for the code of a generator or async generator."""
    return bool(code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR))


def note_binding(frame: FrameType | None, scope: Scope) -> None:
    """Note a binding made by `frame` for each tracked generator around it in flight."""
    outermost, made = task_frame(), None
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        if is_generator(frame.f_code):
            for binding in _bindings_of(frame):
                made = made or (scope.entry, scope.resolve())
                binding.made = made
        if frame is outermost:
            return
        frame = frame.f_back


def _bindings_of(frame: FrameType) -> list[Binding]:
    """Return the bindings of a generator's frame: of its open blocks, and of the generator if it is tracked."""
    number, code = id(frame), frame.f_code
    found = [binding for binding in open_blocks.get(number, ()) if binding.code is code]
    work, is_wrapper = followed.get(number), code.co_filename == FILENAME
    if is_wrapper or (work is not None and work.is_of(frame)):
        known = bindings.get(number)
        if known is None or known.code is not code:
            known = bindings[number] = Binding(code)
        found.append(known)
    if is_wrapper:
        attach(frame, {}, lambda earlier, _: earlier or {})  # the wrapper's end looks for attached properties only
    return found


def own_scope(start: Scope | Beginning, frame_id: int, code: CodeType) -> Scope | Beginning:
    """Return the scope that a tracked generator has bound itself, or else `start`, its scope at the beginning."""
    binding = bindings.pop(frame_id, None)
    return start if binding is None or binding.code is not code else binding.decide(start)


identity.on_bind = note_binding
