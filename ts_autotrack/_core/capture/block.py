"""Open `with track_feature(...)` blocks."""

from __future__ import annotations

from contextvars import ContextVar

from ts_autotrack._core.capture.binding import Binding, is_generator, open_blocks
from ts_autotrack._core.capture.call import begin_scope, finish_call, merge_extras
from ts_autotrack._core.capture.stack import current_frame, current_task, place
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.identity.scope import Scope
from ts_autotrack._core.snapshot import snapshot

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import CodeType, FrameType
    from typing import Any

    from ts_autotrack._core.capture.call import CaptureRule
    from ts_autotrack._core.capture.spans import Beginning


class FeatureUse:
    """An open `with track_feature(...)` block.

    Attributes:
        owner: The `Feature` that opened the block.
        outer: The block around this block; None for the outermost block.
        finished: True after the end of the block.

    Example:
        >>> from ts_autotrack import track_feature
        >>> with track_feature("export") as use:
        ...     use.set(rows=3)
    """

    __slots__ = ("_begun", "_binding", "_call", "_properties", "_rule", "_run", "_task", "finished", "outer", "owner")

    def __init__(self, rule: CaptureRule, owner: object, call: FrameType | None, properties: dict[str, Any]) -> None:
        self._rule = rule
        self._properties = properties
        self._call = call
        self._begun = begin_scope()
        self._task = id(current_task())
        self._run: tuple[int, CodeType | None] = 0, None
        self._binding: Binding | None = None
        self.outer = open_use()
        self.finished = False
        self.owner = owner

    def set(self, **values: object) -> None:
        """Attach properties to the block's event.

        Args:
            **values: Property names to values. A snapshot is taken. Later values win.
        """
        try:
            if self.finished:
                where = place(current_frame(1))
                warn_once(("late", where), f"{where}: use.set() after the block ended has no effect; call it inside")
                return
            self._properties = merge_extras(self._properties, snapshot(values))
        except RecursionError:  # the stack has no space for a call of `fault`
            pass

    def enter(self, caller: FrameType) -> None:
        """Make this the innermost open block of the context."""
        _open_use.set(self)
        run = _run_of(caller)
        self._run = id(run), run.f_code
        if is_generator(run.f_code):
            self._binding = Binding(run.f_code)
            open_blocks.setdefault(id(run), []).append(self._binding)

    def leave(self, error: BaseException | None, caller: FrameType) -> None:
        """End the block and record its event. A GeneratorExit counts as success: the consumer closed early."""
        self.finished = True
        if _open_use.get() is self:
            _open_use.set(_nearest_open(self.outer))
        run = _run_of(caller)
        is_closed, is_here = isinstance(error, GeneratorExit), (id(run), run.f_code) == self._run
        # Else the end may be in another user's context.
        begun = None if is_here and not (is_closed or is_generator(run.f_code)) else self._start()
        properties = self._properties
        # A task begun inside refers to this block for good: without the frame, the properties and the blocks around.
        self._call, self._properties, self._begun, self.outer = None, {}, _NOBODY, _nearest_open(self.outer)
        finish_call(self._rule, properties, ((), {}), None, None if is_closed else error, begun)

    def directly_contains(self, call: FrameType | None) -> bool:
        """Return True if no tracked call lies between this block and code whose innermost tracked call is `call`.

        A task that was started inside the block inherits the block, but its work does not belong to the block.
        """
        if self.finished or not (call is None or call is self._call):
            return False
        task = current_task()
        return task is None or id(task) == self._task

    def _start(self) -> Scope | Beginning:
        """Return the scope at the beginning, or the scope that the generator around the block has bound since."""
        binding, number = self._binding, self._run[0]
        if binding is None:
            return self._begun
        others = [other for other in open_blocks.pop(number, ()) if other is not binding]
        if others:
            open_blocks[number] = others
        return binding.decide(self._begun)


def _run_of(frame: FrameType) -> FrameType:
    """Return the frame whose run a block belongs to: not a context manager that opens the block for its caller."""
    while frame.f_back is not None:
        outside = frame.f_back.f_globals.get("__name__") == "contextlib"
        if not (frame.f_globals.get("__name__") == "contextlib" or (outside and is_generator(frame.f_code))):
            break
        frame = frame.f_back
    return frame


_NOBODY = Scope()
_open_use: ContextVar[FeatureUse | None] = ContextVar("ts_autotrack_use", default=None)


def open_use() -> FeatureUse | None:
    """Return the innermost open block of the context."""
    return _nearest_open(_open_use.get())


def _nearest_open(use: FeatureUse | None) -> FeatureUse | None:
    """Return `use`, or the nearest block around it that is still open: another context may have ended blocks."""
    while use is not None and use.finished:
        use = use.outer
    return use
