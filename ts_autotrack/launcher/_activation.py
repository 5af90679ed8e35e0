"""The one entry of programs whose code is left alone: activates features, integrations and the user by the settings."""

from __future__ import annotations

import atexit
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ts_autotrack import settings
from ts_autotrack._core.diagnostics import warn_now
from ts_autotrack._core.named_features import is_function
from ts_autotrack._core.parsers import did_you_mean
from ts_autotrack.launcher._import_hooks import ImportHooks
from ts_autotrack.launcher._targets import Targets, report_fault, use

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from ts_autotrack.typing import Identity

OFF = "off"
"""Value of the setting `integrations` that activates none."""

BY_NAME_ONLY = frozenset({"threads"})
"""Integrations of modules that nearly every program imports: only programs that name them want them."""

hooks = ImportHooks(report_fault)
"""The import hooks of this process."""
_targets: Targets | None = None
"""The targets of this process; None before the activation."""


def activate() -> bool:
    """Read the settings, and prepare the import of the modules that they name. A second call does nothing.

    Never raises: a fault is one warning. An inactive library (disabled, or with the exporter "none") prepares nothing.

    Returns:
        True if this call has activated the library.
    """
    global _targets  # noqa: PLW0603 - the process is activated once
    try:
        values = settings()
        if _targets is not None or values["disabled"] or values["exporter"] == "none":
            return False
        named = values["features"]
        _targets = Targets({key: options for key, options in named.items() if is_function(key)})
        use(_targets)
        atexit.register(_targets.report_missing)
        hooks.install()
        _targets.register(hooks)
        if OFF not in values["integrations"]:
            others = {key: options for key, options in named.items() if not is_function(key)}
            _prepare_frameworks(values["integrations"], others, _named_user(values["user"]))
    except Exception as error:  # noqa: BLE001 - the barrier: called before the program
        report_fault("the program", error)
    return _targets is not None


def deactivate() -> None:
    """Undo `activate`: later imports and requests are not tracked. Functions that are tracked already stay so."""
    global _targets  # noqa: PLW0603 - likewise
    hooks.remove()
    if _targets is not None:
        atexit.unregister(_targets.report_missing)
    _targets = None
    use(None)
    automatic: Any = sys.modules.get("ts_autotrack.integrations._automatic")
    if automatic is not None:
        automatic.deactivate()


def _named_user(name: str | None) -> Callable[[], Identity] | None:
    """Return the resolver that the settings name: the first question finds the function, and imports its module."""
    if name is None:
        return None
    from ts_autotrack.integrations._resolver import NamedUser  # lazily: needed by programs with the setting only

    return NamedUser(name)


def _prepare_frameworks(
    chosen: tuple[str, ...], features: Mapping[str, dict[str, Any]], user: Callable[[], Identity] | None
) -> None:
    """Have the integration of each framework activated when the framework is imported."""
    from ts_autotrack.integrations import _automatic as automatic  # lazily: not for programs without integrations

    for name in chosen:
        if name not in automatic.FRAMEWORKS:
            hint = did_you_mean(name, automatic.FRAMEWORKS) or f". Integrations: {', '.join(automatic.FRAMEWORKS)}"
            warn_now(("integration", name), f"TS_AUTOTRACK_INTEGRATIONS: there is no integration {name!r}{hint}")
    for name, module in automatic.FRAMEWORKS.items():
        if name in chosen or not (chosen or name in BY_NAME_ONLY):
            hooks.add(module, partial(_activate_framework, name, features, user))


def _activate_framework(
    name: str,
    features: Mapping[str, dict[str, Any]],
    user: Callable[[], Identity] | None,
    _: ModuleType,
) -> None:
    from ts_autotrack.integrations import _automatic as automatic  # loaded already

    why = automatic.activate(name, features, user)
    if why is not None:
        warn_now(("integration", name), f"the integration {name!r} is not activated: {why}")
