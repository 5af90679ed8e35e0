"""The settings in a file of the program: `ts_autotrack.toml`, or `[tool.ts_autotrack]` in pyproject.toml."""

from __future__ import annotations

import os
import sys

from ts_autotrack._core import project
from ts_autotrack._core.parsers import did_you_mean, working_directory

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Any, TypeAlias

    Warn: TypeAlias = Callable[[Hashable, str, str], None]

LAUNCH_SETTINGS = frozenset({"features", "integrations", "user"})
"""Settings that count from the file of the launch folder: settings that send nothing anywhere else."""


def read(start: str | None, launched_from: str, names: Mapping[str, bool], warn: Warn) -> tuple[str, dict[str, Any]]:
    """Return the name of the settings file and its settings; nothing without a file.

    Args:
        start: Folder to look for the file from, upwards; None for the program's file, see `project`.
        launched_from: Folder in which `ts-autotrack run` was called; empty without it. At the start of a launched
            process no code of the project is loaded, so the program's file is not known yet.
        names: True for each setting that no shared file should have, False for the others.
        warn: Called with a key, a message and a level for each fault of the file.
    """
    found = project.find(working_directory()) if start is None else project.nearest(start)
    table = {} if found is None else _table(*found, names, warn)
    if found is not None and (table or project.has_settings(*found)):
        return os.path.basename(found[0]), table
    found = project.nearest(launched_from) if launched_from and start is None else None
    if found is None or not project.is_trusted(found[0]):
        return "", {}
    table = _table(*found, names, warn)
    return os.path.basename(found[0]), {name: value for name, value in table.items() if name in LAUNCH_SETTINGS}


def _table(path: str, text: bytes, names: Mapping[str, bool], warn: Warn) -> dict[str, Any]:
    """Return the settings in a file; a fault of the file is a warning."""
    if not project.has_settings(path, text):
        return {}
    # Local imports: only a project with settings in a file needs a TOML parser.
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # pragma: no cover - the suite runs on 3.10, too
        import tomli as tomllib
    is_own = path.endswith(project.OWN_NAME)
    try:
        table = tomllib.loads(text.decode("utf-8-sig"))
        if not is_own:
            table = table.get("tool", {}).get("ts_autotrack", {})
    except (ValueError, AttributeError, RecursionError) as error:
        warn(("setting", path), f"{path} is ignored: {error}", "warning")
        return {}
    if not isinstance(table, dict):
        warn(("setting", path), f"[tool.ts_autotrack] in {path} is ignored: it is no table", "warning")
        return {}
    _check_names(path if is_own else f"{path}: [tool.ts_autotrack]", path, table, names, warn)
    return table


def _check_names(place: str, path: str, table: Mapping[str, Any], names: Mapping[str, bool], warn: Warn) -> None:
    for name in sorted(set(table) - set(names)):
        warn(("setting", path, name), f"{place} has no setting {name!r}{did_you_mean(name, names)}", "warning")
    for name in [name for name in table if names.get(name)]:
        message = f"{path}: {name} belongs in the environment, not in a file that is shared"
        warn(("credential", path, name), message, "warning")
