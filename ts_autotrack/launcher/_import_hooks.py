"""Hooks that run after the import of a module.

Hooks of wrapt run after the first import only ("it doesn't cope with modules being reloaded"), and their exceptions
fail the import. These run after each import and reload of the module, and the import never sees their exceptions.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.client import client

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import TypeAlias

    Hook: TypeAlias = Callable[[ModuleType], None]


_to_import = [client.import_stack]
"""The import of the delivery stack, until it begins: the HTTP client imports click, which has hooks, too."""


class ImportHooks:
    """Finder for `sys.meta_path`: it finds modules by the other finders, and runs the hooks after their imports.

    Args:
        on_fault: Called with the name of the module and the exception of a hook.
    """

    def __init__(self, on_fault: Callable[[str, Exception], None]) -> None:
        self._hooks: dict[str, list[Hook]] = {}
        self._on_fault = on_fault
        self._searches: set[tuple[int, str]] = set()

    def install(self) -> None:
        """Take part in all imports from now on."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Take part in no import any more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._hooks.clear()

    def add(self, name: str, hook: Hook) -> None:
        """Run a hook after each import of a module; also now, if the module is imported already."""
        self._hooks.setdefault(name, []).append(hook)
        module = sys.modules.get(name)
        if module is not None and not is_running(module):
            self._run(name, module, hook)

    def run(self, module: ModuleType) -> None:
        """Run the hooks of a module that is imported now. Raises nothing."""
        name = str(getattr(module, "__name__", ""))
        for hook in list(self._hooks.get(name, ())):
            self._run(name, module, hook)

    def _run(self, name: str, module: ModuleType, hook: Hook) -> None:
        try:
            _import_stack()
            hook(module)
        except Exception as error:  # noqa: BLE001 - the barrier: the application's import goes on
            self._on_fault(name, error)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return the spec of a module with hooks, as the other finders find it; None for other modules."""
        search = get_ident(), name
        if name not in self._hooks or search in self._searches:  # a finder may ask all finders, this one included
            return None
        self._searches.add(search)
        try:
            spec = _found(self, name, path, target)
            if spec is not None and hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, _Loader):
                spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]  # stands in for any loader
            return spec
        finally:
            self._searches.discard(search)


def _import_stack() -> None:
    """Import the delivery stack with the first module that has hooks, on the thread that imports this module."""
    if _to_import:
        _to_import.pop()()


def _found(own: ImportHooks, name: str, path: Any, target: Any) -> ModuleSpec | None:
    """Return the spec that the other finders find. An exception of a finder fails the import, as without hooks."""
    for finder in list(sys.meta_path):
        find = None if finder is own else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, path, target) if find is not None else None
        if spec is not None:
            return spec
    return None


class _Loader:
    """Loader of one import: the module gets its own loader back before its code runs."""

    def __init__(self, loader: Any, hooks: ImportHooks) -> None:
        self._loader = loader
        self._hooks = hooks

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module, or None for the default."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of the module, then the hooks. Tracebacks of the module's own errors show no frame of this."""
        for owner, name in ((module, "__loader__"), (module.__spec__, "loader")):
            if getattr(owner, name, None) is self:
                setattr(owner, name, self._loader)
        self._loader.exec_module(module)
        self._hooks.run(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


# Python leaves the frames of its import system out of a traceback, if no other frame stands between them.
_Loader.exec_module.__code__ = _Loader.exec_module.__code__.replace(co_filename="<frozen importlib._bootstrap>")


def is_running(module: object) -> bool:
    """Return True if the code of a module runs at this moment, during its import."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
