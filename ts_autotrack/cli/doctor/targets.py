"""Checks of the functions that the setting `features` names, and of the function that the setting `user` names."""

from __future__ import annotations

import importlib
import inspect
import sys
from functools import reduce
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.named_features import is_function
from ts_autotrack.cli.doctor.findings import Finding
from ts_autotrack.integrations._named_user import takes_argument
from ts_autotrack.launcher._activation import target_statuses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ts_autotrack.launcher._targets import TargetStatus


_GETS = {
    True: "gets what the integration has, such as the request",
    False: "gets no argument, not even an optional one",
}
"""What the function of the setting `user` gets, by whether it needs an argument."""


def modules_of(settings: Mapping[str, Any]) -> list[str]:
    """Return the modules of the functions that the settings name."""
    keys = [*settings["features"], settings["user"] or ""]
    return [key.partition(":")[0] for key in keys if is_function(key)]


def check_targets(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the state of each named function, after the imports of their modules."""
    for status in target_statuses():
        yield _target_finding(status)
    if settings["user"]:
        yield _user_finding(settings["user"])


def _target_finding(status: TargetStatus) -> Finding:
    if status.state == "tracked":
        why = f" ({status.why})" if status.why else ""
        kind = _kind(status.key)
        return Finding("target", "ok", f"{status.key} = {status.feature}: {kind}, {status.mechanism}{why}")
    if status.key.startswith("__main__:"):
        return Finding("target", "note", f"{status.key} = {status.feature}: only the running program has it")
    reason = f": {status.why}" if status.why else ""
    seen = f"{status.key} = {status.feature}: {status.state}{reason}"
    return Finding("target", "error", seen, "Correct the name in the setting features, or the import above.")


def _kind(key: str) -> str:
    """Return the kind of a function in the words of its users."""
    target = _find(key)
    if isinstance(target, type):
        return "class"
    if inspect.isasyncgenfunction(target):
        return "async generator"
    if inspect.iscoroutinefunction(target):
        return "coroutine function"
    if inspect.isgeneratorfunction(target):
        return "generator"
    return "function" if inspect.isroutine(target) else type(target).__name__


def _find(key: str) -> Any:
    module, _, name = key.partition(":")
    try:
        return reduce(inspect.getattr_static, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return None


def _user_finding(key: str) -> Finding:
    module, _, name = key.partition(":")
    try:
        resolver = reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:  # noqa: BLE001 - code of the application
        seen = f"user = {key} cannot be found: {type(error).__name__}: {error}"
        return Finding("user", "error", seen, "Correct the setting user: it is the name module:function.")
    if not callable(resolver):
        return Finding("user", "error", f"user = {key} is not callable", "Name a function in the setting user.")
    return Finding("user", "ok", f"user = {key} {_GETS[takes_argument(resolver)]}")
