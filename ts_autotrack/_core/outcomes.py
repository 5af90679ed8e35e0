"""Outcomes of calls: exceptions that are no failures."""

from __future__ import annotations

import sys


def is_clean_exit(error: BaseException) -> bool:
    """Return True for an exception that ends a program or a command with exit status 0.

    `SystemExit` with 0 or None, and click's `Exit` (typer's is the same class) with 0.
    """
    if isinstance(error, SystemExit):
        return error.code is None or (type(error.code) is int and error.code == 0)
    exit_class = _loaded("click.exceptions", "Exit")
    return exit_class is not None and isinstance(error, exit_class) and getattr(error, "exit_code", None) == 0


def is_early_end(error: BaseException) -> bool:
    """Return True for an exception that ends a stream whose consumer has gone away: closed or cancelled."""
    if isinstance(error, GeneratorExit):
        return True
    classes = _loaded("asyncio.exceptions", "CancelledError"), _loaded("trio", "Cancelled")
    return any(kind is not None and isinstance(error, kind) for kind in classes)


def _loaded(module: str, name: str) -> type[BaseException] | None:
    """Return an exception class of a module; None if nothing has loaded the module: then nothing raised it."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None
