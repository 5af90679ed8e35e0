"""Outcomes of calls: exceptions that are no failures, and exceptions that are no outcomes."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from typing import Any


_CONTROL_FLOW = (
    ("celery.exceptions", "TaskPredicate"),  # Retry, Ignore, Reject
    ("dramatiq.errors", "Retry"),
    ("taskiq.exceptions", "NoResultError"),  # also by `context.requeue()`
    ("taskiq.exceptions", "TaskRejectedError"),
)
"""Modules and names of the exceptions by which a task tells its queue to run the task again, or to ignore this run."""


def is_control_flow(error: BaseException) -> bool:
    """Return True for an exception by which a task speaks to its queue: the call has no outcome yet, or none at all."""
    return _is_of(error, tuple(_loaded(module, name) for module, name in _CONTROL_FLOW))


def is_clean_exit(error: BaseException) -> bool:
    """Return True for an exception that ends a program or a command with exit status 0.

    `SystemExit` with 0 or None, and the `Exit` of click and typer with 0. Newer versions of typer have a class of their
    own.
    """
    if isinstance(error, SystemExit):
        return error.code is None or (isinstance(error.code, int) and error.code == 0)
    classes = _loaded("click.exceptions", "Exit"), _loaded("typer", "Exit")
    return _is_of(error, classes) and getattr(error, "exit_code", None) == 0


def is_early_end(error: BaseException) -> bool:
    """Return True for an exception that ends a stream whose consumer has gone away: closed or cancelled."""
    if isinstance(error, GeneratorExit):
        return True
    return _is_of(error, (_loaded("asyncio.exceptions", "CancelledError"), _loaded("trio", "Cancelled")))


def cancelled_error(future: Any) -> BaseException:
    """Return the exception that a cancelled future raises. Asking the future would take its own one out of it."""
    is_asyncio = hasattr(future, "get_loop")
    kind = _loaded("asyncio.exceptions" if is_asyncio else "concurrent.futures._base", "CancelledError")
    return kind() if kind is not None else GeneratorExit()


def _is_of(error: BaseException, classes: tuple[type[BaseException] | None, ...]) -> bool:
    return any(kind is not None and isinstance(error, kind) for kind in classes)


def _loaded(module: str, name: str) -> type[BaseException] | None:
    """Return an exception class of a module; None if nothing has loaded the module: then nothing raised it."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None
