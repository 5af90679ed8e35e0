"""The functions that the setting `features` names: tracked when their modules are imported."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from importlib.machinery import PathFinder
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack._core.callables import attribute
from ts_autotrack._core.diagnostics import warn_now
from ts_autotrack._core.named_features import ALL
from ts_autotrack._core.parsers import did_you_mean
from ts_autotrack.launcher._bodies import MAIN, main_module, script_of_a_tool, watch_body
from ts_autotrack.launcher._import_hooks import is_running
from ts_autotrack.launcher._lookup import NotFoundError, find
from ts_autotrack.launcher._tracking import Outcome, holders, track

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TypeAlias

    from ts_autotrack.launcher._import_hooks import ImportHooks
    from ts_autotrack.launcher._lookup import Place

    Options: TypeAlias = dict[str, Any]
    """Options of a feature, see `named_features`."""

MAX_SHOWN = 5
"""Targets that a warning names."""


class TargetStatus(NamedTuple):
    """State of a function that the setting `features` names; of each function for a key "package.module:*".

    Attributes:
        key: The name, such as "myapp.reports:export".
        feature: Name of the feature.
        state: "waiting" for the import of the module, "tracked", "missing" in the module, "not callable", or "failed".
        mechanism: "watched in place", "watched" or "wrapped"; empty if not tracked, or tracked by a decorator.
        why: Reason for the state or the mechanism; empty if there is nothing to say.
    """

    key: str
    feature: str
    state: str
    mechanism: str
    why: str


class Targets:
    """The functions that the settings name.

    Args:
        features: Options of each feature by the name of its function.
    """

    def __init__(self, features: Mapping[str, Options]) -> None:
        self._by_module: dict[str, dict[str, Options]] = {}
        self.statuses: dict[str, TargetStatus] = {}
        for key, options in features.items():
            module, _, qualname = key.partition(":")
            module = main_module() if module == MAIN else module
            self._by_module.setdefault(module, {})[qualname] = options
            self._note(module, qualname, options, "waiting")

    def register(self, hooks: ImportHooks) -> None:
        """Track each function when its module has been imported, and while its module runs."""
        for name in self._by_module:
            is_main = name == main_module()
            if is_main or is_running(sys.modules.get(name)):
                self._watch_body(name)
            if not is_main:
                hooks.add(name, self.on_import)

    def _watch_body(self, name: str) -> None:
        if not watch_body(name, partial(self._on_start, name), partial(self._on_line, name)) and name == main_module():
            why = "another tool traces the program: move the function to a module of its own"
            for qualname, options in self._by_module[name].items():
                self._note(name, qualname, options, "missing", why)

    def _on_start(self, name: str, used: tuple[str, ...]) -> bool:
        """Give up the functions of a module whose code does not use their names; return True if none is left."""
        entries = {part: options for part, options in self._waiting(name).items() if part.partition(".")[0] not in used}
        entries.pop(ALL, None)
        for qualname, options in entries.items():
            top = qualname.partition(".")[0]
            why = f"the module {name} has no {top!r}{did_you_mean(top, used)}"
            self._note(name, qualname, options, "missing", why)
        if any("did you mean" in self.statuses[f"{name}:{part}"].why for part in entries):
            self._warn_of_faults(name, entries)
        return not self._waiting(name)

    def _on_line(self, name: str, space: dict[str, Any], ended: bool) -> bool:  # noqa: FBT001 - called by `_bodies`
        """Track the functions that a running module has defined so far; return True if it has defined all."""
        try:
            module, waiting = sys.modules[name], self._waiting(name)
            defined = {part: options for part, options in waiting.items() if part.partition(".")[0] in space}
            if ended:
                self.on_import(module)
            elif defined:
                self._track(module, {part: options for part, options in defined.items() if _is_there(module, part)})
            return not self._waiting(name)
        except Exception as error:  # noqa: BLE001 - the barrier: called between the application's lines
            report_fault(name, error)
            return True

    def _waiting(self, name: str) -> dict[str, Options]:
        entries = self._by_module[name]
        known = {part: self.statuses.get(f"{name}:{part}") for part in entries}  # none for `*` after the import
        return {
            part: entries[part] for part, status in known.items() if status is not None and status.state == "waiting"
        }

    def on_import(self, module: ModuleType) -> None:
        """Track the functions of a module after its import; once more after each reload."""
        entries = dict(self._by_module[module.__name__])
        common = entries.pop(ALL, None)
        self._track(module, entries)
        if common is not None:
            self.statuses.pop(f"{module.__name__}:{ALL}", None)
            self._track(module, {name: common for name in _public_functions(module) if name not in entries})
        self._warn_of_faults(module.__name__, entries)

    def _track(self, module: ModuleType, entries: Mapping[str, Options]) -> None:
        replaced: dict[str, Any] = {}
        for qualname, given in entries.items():
            # By `__name__`, all lambdas would be one feature, and all functions of a decorator without `wraps`.
            options = {**given, "feature": qualname.rpartition(".")[2]} if given["feature"] == ALL else given
            outcome = Outcome("missing")
            try:
                outcome = track(_find(module, qualname), options)
                if outcome.replaced is not None:
                    replaced[f"{module.__name__}:{qualname}"] = outcome.replaced
            except NotFoundError as error:
                outcome = Outcome("missing", why=str(error))
            except Exception as error:  # noqa: BLE001 - an object that raises wherever it is touched: the others count
                outcome = Outcome("failed", why=f"reading it raises {type(error).__name__}")
            known = self.statuses.get(f"{module.__name__}:{qualname}")
            if outcome.state != "tracked" or outcome.mechanism or known is None or known.state != "tracked":
                self._note(module.__name__, qualname, options, outcome.state, outcome.why, outcome.mechanism)
        if replaced:
            _warn_of_holders(replaced)

    def _note(
        self, module: str, qualname: str, options: Options, state: str, why: str = "", mechanism: str = ""
    ) -> None:
        feature = options["feature"]
        if feature == ALL and qualname != ALL:
            feature = qualname.rpartition(".")[2]
        key = f"{module}:{qualname}"
        self.statuses[key] = TargetStatus(key, feature, state, mechanism, why)

    def _warn_of_faults(self, module: str, entries: Iterable[str]) -> None:
        statuses = [self.statuses[f"{module}:{qualname}"] for qualname in entries]
        bad = [f"{status.key!r}: {status.why}" for status in statuses if status.state != "tracked"]
        if bad:
            warn_now(("target", module), f"the setting features has names without effect: {_some(bad)}")

    def report_missing(self) -> None:
        """Warn once of functions in modules that do not exist, or that were imported or run past the launcher.

        Called at the end of the process.

        A module that exists may just not be needed by this process, and neither is an application that was never
        imported: pip and the parent of a reloader run under the launcher, too.
        """
        missing, passed = [], []
        for name in self._by_module:
            if name == main_module():
                self._report_main(name)
                continue
            waiting = self._waiting(name)
            if waiting and name in sys.modules:
                passed += [name] if _is_loaded(sys.modules[name]) else []
            elif waiting and not _may_exist(name):
                missing += [f"{name}:{qualname}" for qualname in waiting]
                for qualname, options in waiting.items():
                    self._note(name, qualname, options, "missing", f"there is no module {name!r}")
        if missing:
            warn_now(("target", "missing"), f"the setting features names modules that do not exist: {_some(missing)}")
        if passed:
            message = (
                "features of these modules were not tracked, because another finder in sys.meta_path, in front of this "
                f"library's, imported them: {_some(passed)}. Decorate their functions with track_feature"
            )
            warn_now(("target", "passed"), message)

    def _report_main(self, name: str) -> None:
        """Warn of functions that the program has, and that were not seen: another tool has run the program's code."""
        module, passed = sys.modules.get(name), []
        if module is None:
            return
        script = script_of_a_tool(module)
        for qualname in self._by_module[name]:
            status = self.statuses.get(f"{name}:{qualname}")  # none for `*` after the import
            is_missed = status is not None and status.state != "tracked"
            if is_missed and (_is_there(module, qualname) or _defines(script, qualname)):
                passed.append(f"{name}:{qualname}")
        if passed:
            message = (
                f"functions of the program itself were not tracked, because another tool has run it: {_some(passed)}. "
                "Move them to a module"
            )
            warn_now(("target", "main"), message)


def _is_loaded(module: ModuleType) -> bool:
    """Return True unless the code of a module runs, or waits for the first use of the module."""
    return not is_running(module) and type(module).__name__ != "_LazyModule"


def _find(module: ModuleType, qualname: str) -> Place:
    """Return the place under a name in the module that others import: a module may put another one in `sys.modules`.

    Raises:
        NotFoundError: Neither module has the name.
    """
    known = sys.modules.get(module.__name__)
    if known is not module and isinstance(known, ModuleType):
        with contextlib.suppress(NotFoundError):
            return find(known, qualname)
    return find(module, qualname)


def _is_there(module: ModuleType, qualname: str) -> bool:
    try:
        find(module, qualname)
    except Exception:  # noqa: BLE001 - as in `_track`, besides NotFoundError
        return False
    return True


def _defines(source: str, qualname: str) -> bool:
    """Return True if a source has a function or a class of the name's first part, or anything for `*`."""
    name = qualname.partition(".")[0]
    return bool(source) and (
        name == ALL or any(f"{word} {name}{mark}" in source for word in ("def", "class") for mark in "(:")
    )


def _public_functions(module: ModuleType) -> list[str]:
    """Return the names of the public functions that a module defines itself."""
    public = vars(module).get("__all__")
    names = [name for name in list(vars(module)) if not name.startswith("_")] if public is None else list(public)
    found = [name for name in names if _is_function_of(module, vars(module).get(name))]
    return sorted(found, key=lambda name: attribute(vars(module)[name], "__name__") != name)  # aliases last


def _is_function_of(module: ModuleType, found: Any) -> bool:
    is_function = type(found) is FunctionType or _wraps_function(found)
    return is_function and attribute(found, "__module__") == module.__name__ and not isinstance(found, type)


def _wraps_function(found: Any) -> bool:
    """Return True for an object around a plain function. No `__getattr__` runs: it would set up a lazy object."""
    try:
        return type(object.__getattribute__(found, "__wrapped__")) is FunctionType
    except Exception:  # noqa: BLE001 - most objects wrap nothing
        return False


def _may_exist(name: str) -> bool:
    """Return True unless the packages imported so far have no such module. Imports nothing."""
    parent, _, _ = name.rpartition(".")
    if not parent or parent not in sys.modules:
        return True if not parent else _may_exist(parent)
    path = getattr(sys.modules[parent], "__path__", None)
    if path is None:
        return False
    try:
        return PathFinder.find_spec(name, path) is not None
    except Exception:  # noqa: BLE001 - a finder of the application
        return True


def _warn_of_holders(replaced: dict[str, Any]) -> None:
    found = holders(replaced)
    if found:
        message = (
            f"{_some(list(replaced))}: only calls by this name are tracked, and these hold the function from before: "
            f"{_some(found)}. Python 3.12 and newer track their calls, too, without the options capture and on"
        )
        warn_now(("target", "holders", *replaced), message)


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - MAX_SHOWN} more" if len(texts) > MAX_SHOWN else ""
    return "; ".join(texts[:MAX_SHOWN]) + more


def report_fault(name: str, error: Exception) -> None:
    """Warn of an exception of this library that an import hook has held back."""
    message = f"tracking {name} failed ({type(error).__name__}: {error}); the application was not affected"
    warn_now(("target", "fault", name), message)
