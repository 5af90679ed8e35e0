"""Threads and executors: work belongs to the user acting at its hand-over.

Python starts threads, and the tasks of thread pools, with nobody. `instrument_threads()` patches
`ThreadPoolExecutor.submit` (also behind `map` and `loop.run_in_executor`) and `threading.Thread.start`.
"""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ts_autotrack import propagate_context
from ts_autotrack.integrations._patches import Patches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Original = Callable[..., Any]

WORKERS = (
    *("concurrent.futures.", "multiprocessing.pool.", "multiprocessing.queues."),
    *("anyio.", "trio.", "ts_autotrack._core.delivery."),
)
"""Beginnings of modules whose threads serve many users: the user at the start of such a thread says nothing."""
OTHER_INTERPRETERS = "concurrent.futures.interpreter"
"""Module of a pool that pickles its functions."""

_patches = Patches()


def instrument_threads() -> None:
    """Carry the acting user into all threads and tasks of thread pools from now on; a second call changes nothing.

    Call it once, when the program starts. The threads of pools start with nobody, as before: each task has the user
    acting at its `submit`, and nothing of a task is seen by the next task on the same thread.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> from ts_autotrack import track, user_context
        >>> from ts_autotrack.integrations.threads import instrument_threads, uninstrument_threads
        >>> instrument_threads()
        >>> with ThreadPoolExecutor() as pool, user_context("user_123"):
        ...     _ = pool.submit(track, "report_ready")
        >>> uninstrument_threads()
    """
    _patches.add(ThreadPoolExecutor, "submit", _submit)
    _patches.add(threading.Thread, "start", _start)


def uninstrument_threads() -> None:
    """Undo `instrument_threads()`. Work that was handed over before keeps its user.

    A method that another tool has patched in the meantime keeps that patch; ours does nothing any more.
    """
    _patches.undo()


def _submit(original: Original, pool: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if not args or not callable(args[0]) or _module(type(pool)) == OTHER_INTERPRETERS:
        return original(*args, **kwargs)
    return original(_carried(args[0]), *args[1:], **kwargs)


def _start(original: Original, thread: threading.Thread, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    state = vars(thread)
    if "_target" not in state or thread.ident is not None or _is_worker(thread):
        return original(*args, **kwargs)  # also a thread without `__init__` or started before: Python refuses both
    run = _Run(thread)
    state["run"] = run
    try:
        return original(*args, **kwargs)
    except BaseException:
        run.remove()
        raise


class _Run:
    """The `run` of a thread until the thread begins, for the user acting at the start."""

    __slots__ = ("_carried", "_own", "_state")

    def __init__(self, thread: threading.Thread) -> None:
        self._state = vars(thread)
        self._own = self._state.get("run")
        self._carried = _carried(thread.run)

    def __call__(self) -> None:
        self.remove()  # else the thread would hold itself
        self._carried()

    def remove(self) -> None:
        """Leave the thread as it was."""
        if self._state.get("run") is self:
            del self._state["run"]
            if self._own is not None:
                self._state["run"] = self._own


def _is_worker(thread: threading.Thread) -> bool:
    """Return True for a thread that a pool or this library starts for itself."""
    modules = _module(type(thread)), _module(vars(thread)["_target"])
    return any(f"{module}.".startswith(WORKERS) for module in modules)


def _module(target: object) -> str:
    """Return the module of a class or function."""
    module = getattr(target, "__module__", None)
    return module if isinstance(module, str) else ""


def _carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable that calls any function or class for the user acting now, and returns the result as it is."""
    call = _call
    with contextlib.suppress(Exception):  # threads start and tasks run, whatever happens here
        call = propagate_context(_call)

    def carried(*args: Any, **kwargs: Any) -> Any:
        return call(function, args, kwargs)[0]

    return carried


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any]:
    """Return the result in a tuple: `propagate_context` would go on with a coroutine or generator."""
    return (function(*args, **kwargs),)
