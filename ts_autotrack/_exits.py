"""The ways a process ends, and what each needs so that the events that it still holds are delivered.

Most ends run `atexit`. Those that do not are arranged for with the first event, in the process that tracks it: SIGTERM
with the default disposition, multiprocessing's children, Celery's workers and uvicorn, which each end in their own way.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class _Registry:
    """What multiprocessing holds on to, weakly, for `register_after_fork`."""


_registry = _Registry()


def arrange(
    drain: Callable[[], object], drain_last: Callable[[], object], drain_and: Callable[[Callable[[], object]], object]
) -> None:
    """Have what is left delivered at those ends of this process that run no exit hooks.

    Args:
        drain: Waits for what is left, within the setting EXIT_TIMEOUT; the process may go on afterwards.
        drain_last: The same where the process is going to end when its threads have ended.
        drain_and: The same, then calls what it is given, which ends the process.
    """
    on_sigterm(drain_and)
    _in_child_processes(drain, drain_last)
    _in_uvicorn(drain)


def on_sigterm(drain_and: Callable[[Callable[[], object]], object]) -> None:
    """Drain before the default disposition of SIGTERM ends the process; an application's own handler is left alone.

    Python lets only the main thread of the main interpreter set a handler: elsewhere this does nothing.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        or _is_caught_in_c(signal.SIGTERM)
    ):
        return

    def handler(number: int, _: FrameType | None) -> None:  # pragma: no cover - it ends the process that measures
        signal.signal(number, signal.SIG_DFL)  # a second SIGTERM does not wait
        die = partial(os.kill, os.getpid(), number)  # so that the exit status is that of the signal
        gevent: Any = sys.modules.get("gevent")
        if gevent is not None and gevent.getcurrent() is gevent.get_hub():
            gevent.spawn(drain_and, die)  # the hub must not wait, and nothing would go on if it did
        else:
            drain_and(die)

    with suppress(ValueError):  # a subinterpreter, whose main thread is not that of the process
        signal.signal(signal.SIGTERM, handler)


def _is_caught_in_c(number: int) -> bool:
    """Whether a handler is there that Python knows nothing of, such as `faulthandler.register` installs."""
    try:
        with open("/proc/self/status") as status:  # noqa: PTH123 - pathlib costs an import
            caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
    except (OSError, StopIteration):  # not Linux
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)


def _in_child_processes(drain: Callable[[], object], drain_last: Callable[[], object]) -> None:
    """Children of multiprocessing and billiard leave by `os._exit`, after their finalizers."""
    for package in ("multiprocessing", "billiard"):
        util, process = sys.modules.get(f"{package}.util"), sys.modules.get(f"{package}.process")
        if util is not None and getattr(process, "_parent_process", None) is not None:
            util.Finalize(None, drain_last, exitpriority=0)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        # A child that tracked while its main module was being imported has its finalizers cleared after that.
        finalize = util.Finalize
        util.register_after_fork(_registry, lambda _: finalize(None, drain_last, exitpriority=0))
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:  # its workers skip even the finalizers
        signals.worker_process_shutdown.connect(_ignoring_arguments(drain), weak=False, dispatch_uid="ts_autotrack")


def _ignoring_arguments(drain: Callable[[], object]) -> Callable[..., None]:
    def receive(**_: object) -> None:
        drain()

    return receive


def _in_uvicorn(drain: Callable[[], object]) -> None:
    """Uvicorn handles SIGTERM itself, restores the default disposition at its end and sends itself the signal again."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if server is None or type(server).__module__ != "uvicorn.server" or "shutdown" in vars(server):
        return
    shutdown = server.shutdown  # pragma: no cover - a signal ends the process that measures

    async def shutdown_and_drain(*args: Any, **kwargs: Any) -> None:  # pragma: no cover
        await shutdown(*args, **kwargs)
        drain()

    server.shutdown = shutdown_and_drain  # pragma: no cover
