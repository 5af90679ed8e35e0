"""Hooks after imports: when they run, and all that an import does not notice of them."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from tests.launcher.conftest import Program


def test_hook_runs_after_each_import_and_reload(program: Program) -> None:
    """A hook sees the complete module: after the import, after a reload, and after another first import."""
    program.write("shop", "price = 1")
    seen: list[int] = []
    program.hooks.install()
    program.hooks.install()
    program.hooks.add("shop", lambda module: seen.append(module.price))
    shop = program.load("shop")
    importlib.reload(shop)
    del sys.modules["shop"]
    program.load("shop")
    assert seen == [1, 1, 1]
    program.hooks.add("shop", lambda module: seen.append(-module.price))
    assert seen[3:] == [-1], "the module is imported already"


def test_module_has_its_own_loader(program: Program) -> None:
    """A module with a hook has the loader and the spec that it has without one."""
    for name in ("shop", "other"):
        program.write(name, "found = type(__spec__.loader), type(__loader__)")
    program.hooks.install()
    program.hooks.add("shop", lambda _: None)
    shop, other = program.load("shop"), program.load("other")
    assert shop.found == other.found
    assert type(shop.__spec__.loader) is type(other.__spec__.loader)


def test_spec_tells_of_the_source(program: Program) -> None:
    """Tools that only look for the module, such as `python -m`, get its code and its source."""
    program.write("shop", "price = 1")
    program.hooks.install()
    program.hooks.add("shop", lambda _: None)
    spec = importlib.util.find_spec("shop")
    assert spec is not None
    assert spec.loader is not None
    assert spec.loader.get_source("shop") == "price = 1"  # type: ignore[attr-defined]  # of a source loader
    assert "shop" not in sys.modules


def test_fault_of_a_hook_does_not_fail_the_import(program: Program) -> None:
    """An exception of a hook is reported, the next hook runs, and the import succeeds."""

    def fail(module: ModuleType) -> None:
        raise LookupError(module.__name__)

    seen: list[str] = []
    program.write("shop", "price = 1")
    program.hooks.install()
    program.hooks.add("shop", fail)
    program.hooks.add("shop", lambda module: seen.append(module.__name__))
    assert program.load("shop").price == 1
    assert program.faults == [("shop", "LookupError('shop')")]
    assert seen == ["shop"]


def test_error_of_a_module_stays_its_own(program: Program) -> None:
    """A module that cannot be imported fails as without a hook, no hook runs, and the next import may succeed."""
    seen: list[str] = []
    program.hooks.install()
    program.hooks.add("shop", lambda module: seen.append(module.__name__))
    with pytest.raises(ModuleNotFoundError, match="No module named 'shop'"):
        program.load("shop")
    program.write("shop", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        program.load("shop")
    assert seen == []
    program.write("shop", "price = 1")
    program.load("shop")
    assert seen == ["shop"]


def test_other_finders_may_ask_all_finders(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finder in front that looks for a module by `importlib.util.find_spec` ends, and the hook runs once."""

    class Asking:
        busy = False

        def find_spec(self, name: str, *_: object) -> object:
            if name != "shop" or self.busy:
                return None
            self.busy = True
            try:
                return importlib.util.find_spec(name)
            finally:
                self.busy = False

    seen: list[str] = []
    program.write("shop", "price = 1")
    program.hooks.install()
    program.hooks.add("shop", lambda module: seen.append(module.__name__))
    for place in (0, len(sys.meta_path)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "meta_path", [*sys.meta_path[:place], Asking(), *sys.meta_path[place:]])
            sys.modules.pop("shop", None)
            program.load("shop")
    assert seen == ["shop", "shop"]


def test_threads_that_import_together_run_a_hook_once(program: Program) -> None:
    """Two threads that import one module at a time see one import."""
    seen: list[str] = []
    importing = threading.Barrier(2)

    def load() -> None:
        importing.wait(10)
        program.load("shop")

    program.write("shop", "price = sum(range(1_000_000))")
    program.hooks.install()
    program.hooks.add("shop", lambda module: seen.append(module.__name__))
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == ["shop"]
