"""The tool id and the events of `sys.monitoring`: Python reports the returns of some code objects to this library."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any
    from weakref import ref

NAME = "ts_autotrack"
TOOL_IDS = (4, 3, 5)
"""Ids to try. By convention debuggers, coverage and profilers take 0 to 2; ddtrace takes 3 and 4."""

_monitoring: Any = getattr(sys, "monitoring", None)
DISABLE: object = getattr(_monitoring, "DISABLE", None)
"""Returned by a callback: Python reports this place no more until `restart`."""
RETURN: int = _monitoring.events.PY_RETURN if _monitoring else 0
YIELD: int = _monitoring.events.PY_YIELD if _monitoring else 0
UNWIND: int = _monitoring.events.PY_UNWIND if _monitoring else 0


class Monitor:
    """The library's id in `sys.monitoring`. Python before 3.12 and PyPy have none."""

    __slots__ = ("_callbacks", "_events", "_everywhere", "_tool")

    def __init__(self) -> None:
        self._tool: int | None = None
        self._callbacks: dict[int, Callable[..., object]] = {}
        self._events: dict[int, tuple[ref[CodeType], int]] = {}  # by the id of the code
        self._everywhere = 0

    def ready(self) -> bool:
        """Take an id, or take one again if another tool has freed this library's; return False if none is free."""
        if _monitoring is None:
            return False
        if self._tool is not None and _monitoring.get_tool(self._tool) == NAME:
            return True
        if self._tool is not None:
            self._withdraw(self._tool)
        self._tool = next((tool for tool in TOOL_IDS if _monitoring.get_tool(tool) is None), None)
        if self._tool is None:
            return False
        _monitoring.use_tool_id(self._tool, NAME)
        for event, callback in self._callbacks.items():
            _monitoring.register_callback(self._tool, event, callback)
        _monitoring.set_events(self._tool, self._everywhere)
        for reference, events in list(self._events.values()):
            if (code := reference()) is not None:
                _monitoring.set_local_events(self._tool, code, events)
        return True

    def _withdraw(self, tool: int) -> None:
        """Take the callbacks back from a freed id: Python keeps them, and the next holder's events would reach them."""
        for event, callback in self._callbacks.items():
            current = _monitoring.register_callback(tool, event, None)
            if current is not callback:  # the next holder's
                _monitoring.register_callback(tool, event, current)

    def keep(self) -> None:
        """Take an id again if another tool has freed this library's."""
        if self._tool is not None and _monitoring.get_tool(self._tool) != NAME:
            self.ready()

    def call(self, event: int, callback: Callable[..., object]) -> None:
        """Set the callback of an event."""
        self._callbacks[event] = callback

    def watch(self, code: CodeType, events: int, reference: ref[CodeType]) -> None:
        """Set the events of a code object. The owner of `reference` calls `forget` at the end of the code."""
        self._events[id(code)] = reference, events
        if self.ready():
            _monitoring.set_local_events(self._tool, code, events)

    def unwatch(self, code: CodeType) -> None:
        """Let Python report nothing of a code object."""
        self.forget(id(code))
        if self.ready():
            _monitoring.set_local_events(self._tool, code, 0)

    def forget(self, number: int) -> None:
        """Forget a code object that is gone, by its id."""
        self._events.pop(number, None)

    def watch_unwinding(self) -> None:
        """Report each function that an exception leaves, of all code: Python cannot do so for a single code object.

        Costs 80 to 180 ns for each such function, so only applications that need the event pay for it.
        """
        if not self._everywhere:
            self._everywhere = UNWIND
            if self.ready():
                _monitoring.set_events(self._tool, UNWIND)

    def restart(self) -> None:
        """Let Python report disabled places again."""
        if self._events:
            _monitoring.restart_events()

    def __str__(self) -> str:
        if _monitoring is None:
            return "functions are wrapped: this Python has no sys.monitoring"
        if self._tool is None and all(_monitoring.get_tool(tool) is not None for tool in TOOL_IDS):
            return f"functions are wrapped: other tools hold the ids {TOOL_IDS} of sys.monitoring"
        return "functions are watched by sys.monitoring"


monitor = Monitor()
"""The library's id in this process."""
