"""Modules whose code runs at this moment: the program itself, and a module that activates the library while it runs.

No import hook runs in time: a script defines its functions and calls them. So each line of the code of such
a module is reported once, before it runs: by `sys.monitoring`, or by `sys.settrace` on Python 3.10 and 3.11.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.capture.monitor import take_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType, ModuleType
    from typing import TypeAlias

    OnStart: TypeAlias = Callable[[tuple[str, ...]], bool]
    """Called with the names that the code of a module uses; returns True if no target is left to find."""
    OnLine: TypeAlias = Callable[[dict[str, Any], bool], bool]
    """Called with the globals of a module and True at the end of its code; returns True if no target is left."""

NAME = "ts_autotrack launcher"
MAIN = "__main__"
MAIN_OF_CHILD = "__mp_main__"
"""Name under which a child process of multiprocessing runs the code of its parent's `__main__` once more."""
_AWAITED = (MAIN, MAIN_OF_CHILD)
"""Modules whose code may be about to run."""
MAX_SOURCE = 1_000_000
"""Characters of a script that are searched for functions."""
_BEGIN_OF_WORK = "_bootstrap"
"""Function of multiprocessing that runs the work of a child: after `__mp_main__`, if that runs at all."""
_IDS = (5, 4, 3)
"""Tool ids of `sys.monitoring` to try. The id is freed as soon as no target is left."""
_monitoring: Any = getattr(sys, "monitoring", None)


def watch_body(name: str, on_start: OnStart, on_line: OnLine) -> bool:
    """Watch the code of a module that runs, or of the program that is about to run.

    Args:
        name: Name of the module.
        on_start: Called once, before the first line that is watched. It ends the watch early: a server's main module,
            which defines no target, runs as long as the server.
        on_line: Called before each line, and at the end.

    Returns:
        False if the code of the module does not run, or no tool may watch it.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect is heavy to import
    while frame is not None and not _is_body(frame, name):
        frame = frame.f_back
    if frame is None and name not in _AWAITED:
        return False
    body = (Tracing if _monitoring is None else Monitoring)(name, on_start, on_line)
    return body.start(frame)


def main_module() -> str:
    """Return the name of the module that runs the program's own code in this process."""
    return MAIN_OF_CHILD if any(word.startswith("from multiprocessing.") for word in sys.orig_argv) else MAIN


def script_of_a_tool(main: ModuleType) -> str:
    """Return the source of the script that `python -m cProfile script.py` runs; an empty text for other programs.

    Such a tool puts the script's path, or the module's name, first in `sys.argv`. It stays the module `__main__`, or
    clears that module for the script, as pdb does.
    """
    from pathlib import Path  # lazily: at the end of programs with targets in `__main__` only

    own = getattr(main, "__file__", None)
    try:
        name = sys.argv[0]
        started = sys.orig_argv.index("-m") if "-m" in sys.orig_argv else len(sys.orig_argv)
        by_module = name in sys.orig_argv[started + 2 :]
        script = Path(name) if not by_module or name.endswith(".py") else Path(f"{name.replace('.', '/')}.py")
        if isinstance(own, str) and script.is_file() and (by_module or not script.samefile(own)):
            with script.open(encoding="utf-8", errors="replace") as file:
                return file.read(MAX_SOURCE)
    except (OSError, TypeError, ValueError, LookupError):  # the program may put anything into `sys.argv`
        pass
    return ""


def _is_body(frame: FrameType, name: str) -> bool:
    if frame.f_code.co_name != "<module>":
        return False
    module = sys.modules.get(name)
    return module is not None and frame.f_globals is vars(module)


class Monitoring:
    """Lines of one module, by `sys.monitoring`."""

    def __init__(self, name: str, on_start: OnStart, on_line: OnLine) -> None:
        self._name = name
        self._on_start = on_start
        self._on_line = on_line
        self._tool: int | None = None
        self._code: CodeType | None = None

    def start(self, frame: FrameType | None) -> bool:
        """Watch the code of a frame; without one, the code that the module begins with."""
        self._tool = next((tool for tool in _IDS if take_id(tool, NAME)), None)
        if self._tool is None:
            return False
        events = _monitoring.events
        callbacks = {events.PY_START: self._started, events.LINE: self._line, events.PY_RETURN: self._returned}
        for event, callback in callbacks.items():
            _monitoring.register_callback(self._tool, event, callback)
        if frame is None:
            _monitoring.set_events(self._tool, events.PY_START)
        else:
            self._begin(frame.f_code)
        return True

    def _begin(self, code: CodeType) -> None:
        self._code = code
        _monitoring.set_events(self._tool, 0)
        if self._on_start(code.co_names):
            self._stop(code)
            return
        _monitoring.set_local_events(self._tool, code, _monitoring.events.LINE | _monitoring.events.PY_RETURN)

    def _started(self, code: CodeType, _: int) -> object:
        if self._code is None and _is_body(sys._getframe(1), self._name):  # noqa: SLF001 - the frame of the code
            self._begin(code)
        elif self._code is None and self._name == MAIN_OF_CHILD and code.co_name == _BEGIN_OF_WORK:
            self._stop(code)
        return _monitoring.DISABLE

    def _line(self, code: CodeType, _: int) -> object:
        if code is self._code and self._on_line(sys._getframe(1).f_globals, False):  # noqa: SLF001 - likewise
            self._stop(code)
        return _monitoring.DISABLE

    def _returned(self, code: CodeType, _: int, __: object) -> object:
        if code is self._code:
            self._on_line(sys._getframe(1).f_globals, True)  # noqa: SLF001 - likewise
            self._stop(code)
        return None

    def _stop(self, code: CodeType) -> None:
        self._code = None
        _monitoring.set_events(self._tool, 0)
        _monitoring.set_local_events(self._tool, code, 0)
        for event in (_monitoring.events.PY_START, _monitoring.events.LINE, _monitoring.events.PY_RETURN):
            _monitoring.register_callback(self._tool, event, None)
        _monitoring.free_tool_id(self._tool)


class Tracing:
    """Lines of one module, by `sys.settrace`, for the thread that runs it. A debugger's or coverage's trace wins."""

    def __init__(self, name: str, on_start: OnStart, on_line: OnLine) -> None:
        self._name = name
        self._on_start = on_start
        self._on_line = on_line

    def start(self, frame: FrameType | None) -> bool:
        """Watch a frame; without one, the frame that the module begins with."""
        if sys.gettrace() is not None:
            return False
        if frame is None:
            sys.settrace(self._called)
        elif not self._on_start(frame.f_code.co_names):
            frame.f_trace = self._event
            sys.settrace(_ignore)
        return True

    def _called(self, frame: FrameType, _: str, __: object) -> Any:
        if not _is_body(frame, self._name):
            if self._name == MAIN_OF_CHILD and frame.f_code.co_name == _BEGIN_OF_WORK:
                sys.settrace(None)
            return None
        if self._on_start(frame.f_code.co_names):
            sys.settrace(None)
            return None
        sys.settrace(_ignore)
        return self._event

    def _event(self, frame: FrameType, event: str, _: object) -> Any:
        if not self._on_line(frame.f_globals, event == "return") and event != "return":
            return self._event
        frame.f_trace = None
        if sys.gettrace() is _ignore:
            sys.settrace(None)
        return None


def _ignore(_: FrameType, __: str, ___: object) -> None:
    """Trace no other call. Python calls the trace function of a frame only while the thread has one, too."""
