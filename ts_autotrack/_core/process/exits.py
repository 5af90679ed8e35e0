"""Ends of a process that run no exit hook, each with its own way to deliver the rest.

Most ends run `atexit`. The others are prepared in the process that tracks the first event: SIGTERM with the default
disposition, children of multiprocessing, Celery's workers, uvicorn.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.process.sigterm import handle_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.process.shutdown import Shutdown


class _Registry:
    """Object to which multiprocessing's `register_after_fork` holds a weak reference."""


_registry = _Registry()


def prepare_exits(shutdown: Shutdown) -> None:
    """Deliver the rest at the ends of this process that run no exit hook."""
    if not prepare_sigterm(shutdown):
        warn_once("sigterm", _NO_HANDLER)
    _prepare_child_processes(partial(shutdown.drain, final=True))
    _prepare_celery(shutdown.drain)
    _prepare_uvicorn(shutdown.drain)


def prepare_sigterm(shutdown: Shutdown) -> bool:
    """Deliver the rest at SIGTERM; return False if this thread may not set the handler that would do so."""
    return handle_sigterm(partial(shutdown.drain, interrupting=True))


def _prepare_child_processes(drain: Callable[[], object]) -> None:
    """Children of multiprocessing and billiard leave by `os._exit` after their finalizers."""
    for package in ("multiprocessing", "billiard"):
        util, process = sys.modules.get(f"{package}.util"), sys.modules.get(f"{package}.process")
        if util is not None and getattr(process, "_parent_process", None) is not None:
            util.Finalize(None, drain, exitpriority=0)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # A forkserver's child that tracked during the import of its main module loses its finalizers after that.
        finalize = util.Finalize
        util.register_after_fork(_registry, lambda _: finalize(None, drain, exitpriority=0))


def _prepare_celery(drain: Callable[[], object]) -> None:
    """Celery's workers skip even the finalizers."""
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        receiver = _without_arguments(drain)
        signals.worker_process_shutdown.connect(receiver, weak=False, dispatch_uid="ts_autotrack")


def _without_arguments(drain: Callable[[], object]) -> Callable[..., None]:
    def receive(**_: object) -> None:
        drain()

    return receive


def _prepare_uvicorn(drain: Callable[[], object]) -> None:
    """Uvicorn handles SIGTERM itself, restores the default disposition at its end and resends the signal."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if server is None or type(server).__module__ != "uvicorn.server" or "shutdown" in vars(server):
        return
    shutdown = server.shutdown  # pragma: no cover - a signal ends the process that measures

    async def shutdown_and_drain(*args: Any, **kwargs: Any) -> None:  # pragma: no cover
        await shutdown(*args, **kwargs)
        drain()

    server.shutdown = shutdown_and_drain  # pragma: no cover


_NO_HANDLER = (
    "SIGTERM would end this process without delivering its last events: the first event came from a thread, and only "
    "the main thread can set a handler. Call ts_autotrack.configure() in the main thread, or set the key in the "
    "environment before ts_autotrack is imported; below `ts-autotrack run`, import a module with features there."
)
