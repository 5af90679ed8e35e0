"""The tool id and the events of `sys.monitoring`: Python reports the returns of some code objects to this library."""

from __future__ import annotations

import sys
from _thread import allocate_lock
from functools import partial
from weakref import ref

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any

NAME = "ts_autotrack"
TOOL_IDS = (4, 3, 5)
"""Ids to try. By convention debuggers, coverage and profilers take 0 to 2; ddtrace takes 3 and 4."""

_monitoring: Any = getattr(sys, "monitoring", None)
DISABLE: object = getattr(_monitoring, "DISABLE", None)
"""Returned by a callback: Python reports this place no more until `restart`."""
START: int = _monitoring.events.PY_START if _monitoring else 0
RETURN: int = _monitoring.events.PY_RETURN if _monitoring else 0
YIELD: int = _monitoring.events.PY_YIELD if _monitoring else 0
UNWIND: int = _monitoring.events.PY_UNWIND if _monitoring else 0

with_events = sys.call_tracing
"""Calls a function inside a callback, with the events that Python does not report inside callbacks.

Taking a record may switch to another greenlet of gevent, whose calls would not be seen: of 50 greenlets with 20,000
calls, 98 calls were missing after the start of the worker.
"""


class Monitor:
    """The library's id in `sys.monitoring`. Python before 3.12 and PyPy have none.

    Attributes:
        works: Code whose calls are work of their own, such as generators, by its id; and the works followed at present.
    """

    __slots__ = ("_callbacks", "_codes", "_everywhere", "_taking", "_tool", "works")

    def __init__(self) -> None:
        self._tool: int | None = None
        self._taking = allocate_lock()
        self._callbacks: dict[int, Callable[..., object]] = {}
        # By the id of the code: the hash of a code object covers all of it.
        self._codes: dict[int, tuple[ref[CodeType], int]] = {}  # watched code and its events
        self.works: dict[int, tuple[ref[CodeType], set[int]]] = {}
        self._everywhere = 0

    def ready(self) -> bool:
        """Take an id, or take one again if another tool has freed this library's; return False if none is free."""
        if _monitoring is None:
            return False
        if self._tool is not None and _monitoring.get_tool(self._tool) == NAME:
            return True
        if not self._taking.acquire(blocking=False):  # another thread takes the id at this moment
            return False
        try:
            return self._take_id()
        finally:
            self._taking.release()

    def _take_id(self) -> bool:
        if self._tool is not None:  # freed by another tool; Python 3.12 and 3.13 keep the callbacks of a freed id
            self._leave(self._tool)
        self._tool = next((tool for tool in TOOL_IDS if take_id(tool, NAME)), None)
        if self._tool is None:
            return False
        for event, callback in self._callbacks.items():
            _monitoring.register_callback(self._tool, event, callback)
        _monitoring.set_events(self._tool, self._everywhere)
        for reference, _ in [*self._codes.values(), *self.works.values()]:
            if (code := reference()) is not None:
                self._fit(code)
        return True

    def _leave(self, tool: int) -> None:
        """Take this library's callbacks from an id that is no longer its own, or calls would count twice."""
        for event, callback in self._callbacks.items():
            found = _monitoring.register_callback(tool, event, None)
            if found is not callback:
                _monitoring.register_callback(tool, event, found)

    def keep(self) -> None:
        """Take an id again if another tool has freed this library's."""
        if self._tool is not None and _monitoring.get_tool(self._tool) != NAME:
            self.ready()

    def set_callback(self, event: int, callback: Callable[..., object]) -> None:
        """Set the callback of an event."""
        self._callbacks[event] = callback

    def watch(self, code: CodeType, events: int) -> None:
        """Have events of a code object reported. The caller calls `forget` at the end of the code."""
        reference, earlier = self._codes.get(id(code), (ref(code), 0))
        if events & ~earlier:
            self._codes[id(code)] = reference, earlier | events
            self._fit(code)

    def forget(self, number: int) -> None:
        """Forget a code object that is gone, by its id."""
        self._codes.pop(number, None)

    def follow(self, code: CodeType, work: int) -> None:
        """Have the returns and yields of a code object reported, until `unfollow` is called for the same work."""
        self.expect_work(code)
        self.works[id(code)][1].add(work)
        self._fit(code)

    def silence(self, code: CodeType) -> None:
        """Turn off the events of a code object that an earlier holder of the id has left behind."""
        if self.ready():
            _monitoring.set_local_events(self._tool, code, 0)

    def expect_work(self, code: CodeType) -> None:
        """Take a code object into `works`."""
        number = id(code)
        if number not in self.works:
            self.works.setdefault(number, (ref(code, partial(self._code_gone, number)), set()))

    def unfollow(self, code: CodeType, work: int) -> None:
        """Undo a call of `follow`."""
        works = self.works[id(code)][1]
        works.discard(work)
        if not works:
            self._fit(code)

    def _code_gone(self, number: int, _: object) -> None:
        del self.works[number]

    def _fit(self, code: CodeType) -> None:
        """Set the events of a code object. Needs no lock: the thread that sets last sees the changes of all threads."""
        while self.ready():
            events = self._wanted(code)
            _monitoring.set_local_events(self._tool, code, events)
            if events == self._wanted(code):
                return

    def _wanted(self, code: CodeType) -> int:
        _, events = self._codes.get(id(code), (None, 0))
        _, works = self.works.get(id(code), (None, None))
        return events | RETURN | YIELD if works else events

    def watch_unwinding(self) -> None:
        """Report each function that an exception leaves, of all code: Python cannot do so for a single code object.

        Costs 50 to 100 ns for each such function, so only applications that need the event pay for it.
        """
        if not self._everywhere:
            self._everywhere = UNWIND
            if self.ready():
                _monitoring.set_events(self._tool, UNWIND)

    def restart(self) -> None:
        """Let Python report disabled places again."""
        if self._codes or self.works:
            _monitoring.restart_events()

    def __str__(self) -> str:
        if _monitoring is None:
            return "functions are wrapped: this Python has no sys.monitoring"
        if self._tool is None and all(_monitoring.get_tool(tool) is not None for tool in TOOL_IDS):
            return f"functions are wrapped: other tools hold the ids {TOOL_IDS} of sys.monitoring"
        return "functions are watched by sys.monitoring"


def take_id(tool: int, name: str) -> bool:
    """Try to take a tool id under a name; return False if another tool has the id."""
    try:
        _monitoring.use_tool_id(tool, name)
    except ValueError:
        return False
    return True


monitor = Monitor()
"""The library's id in this process."""
