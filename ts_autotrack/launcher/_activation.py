"""Activates the features, the integrations and the user that the settings name, once in a process."""

from __future__ import annotations

import atexit
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ts_autotrack import settings
from ts_autotrack._core.diagnostics import warn_now
from ts_autotrack._core.named_features import is_function
from ts_autotrack._core.parsers import did_you_mean
from ts_autotrack.launcher._import_hooks import ImportHooks
from ts_autotrack.launcher._targets import Targets, report_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from ts_autotrack.launcher._targets import TargetStatus
    from ts_autotrack.typing import Identity

OFF, ALL = "off", "all"
"""Values of the setting `integrations`: no integration, and the default, beside which "threads" may be named."""

BY_NAME_ONLY = frozenset({"threads"})
"""Integrations of modules that nearly every program imports: active only if the settings name them."""

_BOOTSTRAP = f"{__file__.rpartition(os.sep)[0]}{os.sep}bootstrap"
"""Folder that `ts-autotrack run` puts on the path: `launcher._run.BOOTSTRAP`, whose module is not needed here."""

hooks = ImportHooks(report_fault)
"""The import hooks of this process."""
_targets: Targets | None = None
"""The targets of this process; None before the activation."""
_prepared: dict[str, None] = {}
"""Integrations that wait for the import of their framework, or are active."""
_launched = False
"""True after an activation of all integrations, not only of the needed ones."""


def activate(*, only_needed: bool = False) -> bool:
    """Read the settings, and prepare the import of the modules that they name. A second call does nothing.

    Never raises: a fault is one warning. An inactive library (disabled, or with the exporter "none") prepares nothing.

    Args:
        only_needed: True to leave out integrations that the settings do not name and that no key of `features` needs,
            such as Celery's for the name of a task. A call without it adds these later. Below `ts-autotrack run`, whose
            start another tool's may have replaced, none is left out.

    Returns:
        True if this call has activated the library.
    """
    global _launched, _targets  # noqa: PLW0603 - the process is activated once
    is_first = _targets is None
    try:
        values = settings()
        only_needed = only_needed and _BOOTSTRAP not in sys.path
        if _launched or (only_needed and not is_first) or values["disabled"] or values["exporter"] == "none":
            return False
        _launched = not only_needed
        named = values["features"]
        if _targets is None:
            _targets = Targets({key: options for key, options in named.items() if is_function(key)})
            atexit.register(_targets.report_missing)
            hooks.install()
            _targets.register(hooks)
        if OFF not in values["integrations"]:
            others = {key: options for key, options in named.items() if not is_function(key)}
            user = _named_user(values["user"])
            _prepare_frameworks(_chosen(values["integrations"], others, only_needed), others, user)
    except Exception as error:  # noqa: BLE001 - the barrier: called before the program
        report_fault("the program", error)
    return is_first and _targets is not None


def deactivate() -> None:
    """Undo `activate`: later imports and requests are not tracked. Functions that are tracked already stay so."""
    global _launched, _targets
    hooks.remove()
    if _targets is not None:
        atexit.unregister(_targets.report_missing)
    _targets, _launched = None, False
    _prepared.clear()
    automatic: Any = sys.modules.get("ts_autotrack.integrations._automatic")
    if automatic is not None:
        automatic.deactivate()


def target_statuses() -> list[TargetStatus]:
    """Return the state of each function that the settings name; empty before the activation."""
    return [] if _targets is None else list(_targets.statuses.values())


def is_launched() -> bool:
    """Return True after an activation of all integrations: `ts-autotrack run`, or `import ts_autotrack.auto`."""
    return _launched


def _named_user(name: str | None) -> Callable[[], Identity] | None:
    """Return the resolver that the settings name. Its first call imports the function's module."""
    if name is None:
        return None
    from ts_autotrack.integrations._named_user import NamedUser  # lazily: needed by programs with the setting only

    return NamedUser(name)


def _chosen(named: tuple[str, ...], features: Iterable[str], only_needed: bool) -> list[str]:  # noqa: FBT001 - `activate`'s own
    """Return the names of the integrations to activate; a name without an integration is a warning."""
    from ts_autotrack.integrations import _automatic as automatic  # lazily: not for programs without integrations

    for name in named:
        if name not in (*automatic.FRAMEWORKS, ALL):
            hint = did_you_mean(name, automatic.FRAMEWORKS) or f". Integrations: {', '.join(automatic.FRAMEWORKS)}"
            warn_now(("integration", name), f"TS_AUTOTRACK_INTEGRATIONS: there is no integration {name!r}{hint}")
    if only_needed:
        needed = automatic.needed_by(features)
    else:
        needed = set() if named and ALL not in named else automatic.FRAMEWORKS.keys() - BY_NAME_ONLY
    return [name for name in automatic.FRAMEWORKS if name in named or name in needed]


def _prepare_frameworks(
    chosen: Iterable[str], features: Mapping[str, dict[str, Any]], user: Callable[[], Identity] | None
) -> None:
    """Have the integration of each framework activated when the framework is imported."""
    from ts_autotrack.integrations import _automatic as automatic  # loaded already

    for name in chosen:
        if name not in _prepared:
            _prepared[name] = None
            hooks.add(automatic.FRAMEWORKS[name], partial(_activate_framework, name, features, user))


def _activate_framework(
    name: str,
    features: Mapping[str, dict[str, Any]],
    user: Callable[[], Identity] | None,
    _: ModuleType,
) -> None:
    """Activate the integration of a framework that has been imported; a failure is a warning."""
    from ts_autotrack.integrations import _automatic as automatic  # loaded already

    why = automatic.activate(name, features, user)
    if why is not None:
        warn_now(("integration", name), f"the integration {name!r} is not activated: {why}")
