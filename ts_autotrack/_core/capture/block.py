"""Open `with track_feature(...)` blocks."""

from __future__ import annotations

from contextvars import ContextVar

from ts_autotrack._core.capture.call import begin_scope, finish_call, merge_extras
from ts_autotrack._core.capture.stack import current_frame, place
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.identity.scope import Scope
from ts_autotrack._core.snapshot import snapshot

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from ts_autotrack._core.capture.call import CaptureRule


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

    __slots__ = ("_call", "_properties", "_rule", "_scope", "finished", "outer", "owner")

    def __init__(self, rule: CaptureRule, owner: object, call: FrameType | None, properties: dict[str, Any]) -> None:
        self._rule = rule
        self._properties = properties
        self._call = call
        self._scope = begin_scope()
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

    def enter(self) -> None:
        """Make this the innermost open block of the context."""
        _open_use.set(self)

    def leave(self, error: BaseException | None) -> None:
        """End the block and record its event. A GeneratorExit counts as success: the consumer closed early."""
        self.finished = True
        if _open_use.get() is self:
            _open_use.set(_nearest_open(self.outer))
        properties, scope = self._properties, self._scope
        # A task begun inside refers to this block for good: without the frame, the properties and the blocks around.
        self._call, self._properties, self._scope, self.outer = None, {}, _NOBODY, _nearest_open(self.outer)
        if isinstance(error, GeneratorExit):  # the generator may be closed in another user's context
            finish_call(self._rule, properties, ((), {}), scope=scope)
        else:
            finish_call(self._rule, properties, ((), {}), None, error)

    def directly_contains(self, call: FrameType | None) -> bool:
        """Return True if no tracked call lies between this block and code whose innermost tracked call is `call`."""
        return not self.finished and (call is None or call is self._call)


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
