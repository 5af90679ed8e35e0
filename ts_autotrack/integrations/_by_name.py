"""Integrations activated by name, for programs whose code is left alone: TS_AUTOTRACK_INTEGRATIONS="celery,threads"."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from ts_autotrack import integrations
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def activate(names: Iterable[str]) -> list[str]:
    """Call `instrument_NAME()` of each integration. Never raises: a name without one is a warning.

    Args:
        names: Names of modules of `ts_autotrack.integrations`.

    Returns:
        The activated names.

    Example:
        >>> activate(["threads"])
        ['threads']
        >>> deactivate(["threads"])
    """
    return [name for name in names if _call("instrument", name)]


def deactivate(names: Iterable[str]) -> None:
    """Call `uninstrument_NAME()` of each integration. Never raises."""
    for name in names:
        _call("uninstrument", name)


def _call(verb: str, name: str) -> bool:
    known = [module.name for module in pkgutil.iter_modules(integrations.__path__) if not module.name.startswith("_")]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the integrations are {', '.join(known)}"
        return _refuse(name, f"there is no such integration: {hint}")
    try:
        module = importlib.import_module(f"{integrations.__name__}.{name}")
        function: Callable[[], object] | None = getattr(module, f"{verb}_{name}", None)
        if function is None:
            return _refuse(name, "this integration needs the application's own object: see its documentation")
        function()
    except Exception as error:  # noqa: BLE001 - a broken installation, or another tool's patch
        return _refuse(name, f"{type(error).__name__}: {error}")
    return True


def _refuse(name: str, why: str) -> bool:
    warn_once("TS_AUTOTRACK_INTEGRATIONS: %r is not activated: %s", name, why)
    return False
