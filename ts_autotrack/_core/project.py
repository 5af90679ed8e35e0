"""The settings file of the program: the only one whose settings count. ts_autotrack.toml wins over pyproject.toml.

The endpoint decides where the key goes, so the file has to belong to the program, not to the folder that a tool is run
in: somebody else's checkout may have a file, too.

- A script (`python app.py`) has the nearest file upwards from its own folder.
- An installed command (gunicorn, celery, `python -m`), `python -c` and an interactive session have the nearest file
  upwards from the working directory, if code was loaded from the file's folder. Code in site-packages does not count.
- The file's owner is the owner of that code, the user of this process, or root.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_NAME, SHARED_NAME = "ts_autotrack.toml", "pyproject.toml"
_INSTALLED = ("site-packages", "dist-packages")
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STANDARD_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))


def find(working_directory: str) -> tuple[str, bytes] | None:
    """Return path and text of the program's settings file; None without one."""
    script = main_script()
    if script and (found := nearest(os.path.dirname(script))) is not None:
        return found if _is_owned(found[0], script) else None
    found = nearest(working_directory)
    if found is None or not (found[0].endswith(OWN_NAME) or b"ts_autotrack" in found[1]):
        return None
    return found if any(_is_owned(found[0], file) for file in _code_below(os.path.dirname(found[0]))) else None


def nearest(folder: str) -> tuple[str, bytes] | None:
    """Return path and text of the nearest settings file upwards from a folder."""
    while folder:
        for name in (OWN_NAME, SHARED_NAME):
            path = os.path.join(folder, name)
            try:
                with open(path, "rb") as file:
                    return path, file.read()
            except OSError:
                continue
        parent = os.path.dirname(folder)
        folder = parent if parent != folder else ""
    return None


def main_script() -> str:
    """Return the path of the script that Python was started with; an empty text for an installed command.

    Python makes the path of a script absolute. Other main modules, of frozen programs for example, have any path.
    """
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(file, str) or not os.path.isabs(file):
        return ""
    path = os.path.realpath(file)
    commands = (os.path.join(sys.prefix, "bin"), os.path.join(sys.prefix, "Scripts"))
    is_command = os.path.dirname(path) in {os.path.realpath(folder) for folder in commands}
    return "" if is_command or not _is_of_a_project(path) else path


def _code_below(folder: str) -> Iterator[str]:
    """Yield the files of loaded modules that lie below a folder and are not installed."""
    prefix = os.path.join(folder, "")
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and file.startswith(prefix) and _is_of_a_project(file):
            yield file


def _is_of_a_project(path: str) -> bool:
    if any(name in path.split(os.sep) for name in _INSTALLED):
        return False
    return not path.startswith((os.path.join(_STANDARD_LIBRARY, ""), os.path.join(_PACKAGE, "")))


def is_trusted(path: str) -> bool:
    """Return True if a file belongs to the user of this process, or to root."""
    return _is_owned(path, path) if not hasattr(os, "geteuid") else _owner(path) in {0, os.geteuid()}


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1


def _is_owned(path: str, code: str) -> bool:
    """Return True if a file belongs to the owner of the code, to this process's user, or to root."""
    try:
        owners = {0, os.stat(code).st_uid, os.geteuid() if hasattr(os, "geteuid") else 0}
        return os.stat(path).st_uid in owners
    except OSError:
        return False
