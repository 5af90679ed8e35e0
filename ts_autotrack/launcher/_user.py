"""The function that the setting `user` names: it returns the acting user."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.diagnostics import warn_now
from ts_autotrack.launcher._import_hooks import is_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack.typing import Identity


class NamedUser:
    """Asks the named function for the acting user. The first question finds the function, and imports its module.

    A function that cannot be found is one warning, and nobody acts.

    Args:
        name: Name of the function, such as "myapp.auth:current_user".
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._function: Callable[[], Identity] | None = None
        self._gone = False

    def __call__(self) -> Identity:
        """Return the answer of the function. Its exceptions are for the integration that asks."""
        function = self._function or self._find()
        return None if function is None else function()

    def _find(self) -> Callable[[], Identity] | None:
        if self._gone:
            return None
        module_name, _, name = self._name.partition(":")
        module = sys.modules.get(module_name)
        if module is not None and is_running(module) and not hasattr(module, name.partition(".")[0]):
            return None  # asked during the import of the module
        try:
            found: Any = importlib.import_module(module_name)
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:  # noqa: BLE001 - the application's module
            self._give_up(f"{type(error).__name__}: {error}")
            return None
        if not callable(found):
            self._give_up(f"an object of the class {type(found).__name__} is not callable")
            return None
        self._function = found
        return self._function

    def _give_up(self, why: str) -> None:
        self._gone = True
        warn_now(("user", self._name), f"no user is known: TS_AUTOTRACK_USER={self._name!r} leads to nothing: {why}")
