"""The one entry of programs whose code is left alone: activates features, integrations and the user by the settings."""

from __future__ import annotations

import atexit
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

from ts_autotrack import settings
from ts_autotrack._core.diagnostics import warn_now
from ts_autotrack._core.named_features import is_function
from ts_autotrack._core.parsers import did_you_mean
from ts_autotrack.launcher._import_hooks import ImportHooks
from ts_autotrack.launcher._targets import Targets, report_fault, use
from ts_autotrack.launcher._user import NamedUser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from ts_autotrack.typing import Identity

OFF = "off"
"""Value of the setting `integrations` that activates none."""

hooks = ImportHooks(report_fault)
"""The import hooks of this process."""
_active = False


def activate() -> None:
    """Read the settings, and prepare the import of the modules that they name. A second call does nothing.

    Never raises: a fault is one warning. An inactive library (disabled, or with the exporter "none") prepares nothing.
    """
    global _active  # noqa: PLW0603 - the process is activated once
    try:
        values = settings()
        if _active or values["disabled"] or values["exporter"] == "none":
            return
        _active = True
        _prepare(values)
    except Exception as error:  # noqa: BLE001 - the barrier: called before the program
        report_fault("the program", error)


def _prepare(values: Mapping[str, Any]) -> None:
    named = values["features"]
    targets = Targets({key: options for key, options in named.items() if is_function(key)})
    use(targets)
    hooks.install()
    targets.register(hooks)
    atexit.register(targets.report_missing)
    if OFF not in values["integrations"]:
        user = NamedUser(values["user"]) if values["user"] else None
        others = {key: options for key, options in named.items() if not is_function(key)}
        _prepare_frameworks(values["integrations"], others, user)


def _prepare_frameworks(
    chosen: tuple[str, ...], features: Mapping[str, dict[str, Any]], user: Callable[[], Identity] | None
) -> None:
    """Have the integration of each framework activated when the framework is imported."""
    automatic: Any = importlib.import_module("ts_autotrack.integrations._automatic")
    for name in chosen:
        if name not in automatic.FRAMEWORKS:
            hint = did_you_mean(name, automatic.FRAMEWORKS) or f". Integrations: {', '.join(automatic.FRAMEWORKS)}"
            warn_now(("integration", name), f"TS_AUTOTRACK_INTEGRATIONS: there is no integration {name!r}{hint}")
    done: set[str] = set()
    for name, module in automatic.FRAMEWORKS.items():
        if not chosen or name in chosen:
            hooks.add(module, partial(_activate_framework, automatic, name, features, user, done))


def _activate_framework(
    automatic: Any,
    name: str,
    features: Mapping[str, dict[str, Any]],
    user: Callable[[], Identity] | None,
    done: set[str],
    _: ModuleType,
) -> None:
    if name in done:
        return
    done.add(name)
    why = automatic.activate(name, features, user)
    if why is not None:
        warn_now(("integration", name), f"the integration {name!r} is not activated: {why}")
