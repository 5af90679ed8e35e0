"""Starts the library in every interpreter of an environment, for machines where no variable and no command can be set.

A `.pth` file imports a module of its own, which decides by variables and the project's settings file whether to import
the library. Python 3.15 and newer prefer the `.start` file beside it (PEP 829) and ignore the `.pth` file's line then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from pathlib import Path

from ts_autotrack.launcher._run import BOOTSTRAP

MODULE = "_ts_autotrack_start"
PTH, START = "ts_autotrack_start.pth", "ts_autotrack_start.start"
_CONSTANT = 'SETTINGS_FILE = ""'


def site_packages() -> Path:
    """Return the folder of the environment's pure Python packages."""
    return Path(sysconfig.get_path("purelib"))


def is_virtual() -> bool:
    """Return True in a virtual environment."""
    return sys.prefix != sys.base_prefix


def install(folder: Path, settings_file: str) -> list[Path]:
    """Write the files, or write them anew; return their paths.

    Args:
        folder: Folder of the environment's packages.
        settings_file: Settings file that the environment's interpreters use; an empty text if there is none.

    Raises:
        OSError: If a file cannot be written.
    """
    with contextlib.suppress(ValueError):  # on another drive of Windows
        settings_file = os.path.relpath(settings_file, os.path.realpath(sys.prefix)) if settings_file else ""
    source = (BOOTSTRAP / f"{MODULE}.py").read_text(encoding="utf-8")
    texts = {
        f"{MODULE}.py": source.replace(_CONSTANT, f"SETTINGS_FILE = {settings_file!r}"),
        START: f"{MODULE}:start_installed\n",
        PTH: f"import {MODULE}; {MODULE}.start_installed()\n",  # last: all that it needs is there
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def uninstall(folder: Path) -> list[Path]:
    """Delete the files; return the paths of the deleted ones.

    Raises:
        OSError: If a file cannot be deleted.
    """
    names = [PTH, START, f"{MODULE}.py"]  # the line that imports the module goes first
    found = [path for path in map(folder.joinpath, names) if path.exists()]
    for path in [*found, *folder.glob(f"__pycache__/{MODULE}.*.pyc")]:
        path.unlink()
    return found
