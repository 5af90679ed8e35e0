"""Starts the library before the program: below `ts-autotrack run`, and in an environment with `ts-autotrack install`.

This file stands alone. `ts-autotrack install` copies it into the environment, where it stays after the library is
uninstalled: then it does nothing. It imports nothing until the library is to start.
"""

from __future__ import annotations

import os
import sys

SETTINGS_FILE = ""
"""Settings file of the project, written by `ts-autotrack install`; empty if there was none.

Its path is relative to the environment: a project that is copied with its environment has the settings of the copy.
"""

starting = False
"""True while the library is imported before the program: its imports stay as few as possible."""

_SWITCHES = ("TS_AUTOTRACK_FEATURES", "TS_AUTOTRACK_INTEGRATIONS")


_OFF = ("TS_AUTOTRACK_DISABLED", "DO_NOT_TRACK")
_TRUE = ("1", "true", "yes", "on")
"""Values that turn the library off, as the settings read them: nothing is imported then, which saves 30 ms."""


def start() -> None:
    """Activate the library if this interpreter has it. A fault is one line on standard error, never an exception."""
    if any(os.environ.get(name, "").strip().lower() in _TRUE for name in _OFF):
        return
    global starting  # noqa: PLW0603 - the library looks at it during its import
    starting = True
    try:
        from ts_autotrack.launcher._activation import activate

        activate()
    except Exception as error:  # noqa: BLE001 - the interpreter starts all the same
        absent = isinstance(error, ImportError) and (error.name or "").startswith("ts_autotrack")
        if not absent and sys.stderr is not None:
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            sys.stderr.write(f"ts_autotrack: nothing is tracked in this process: {message}\n")
    finally:
        starting = False


def start_installed() -> None:
    """Start if a variable or the project's settings file asks for tracking; called by the `.pth` or `.start` file."""
    path = os.path.normpath(os.path.join(os.path.realpath(sys.prefix), SETTINGS_FILE))
    if SETTINGS_FILE and os.path.isfile(path):
        os.environ.setdefault("TS_AUTOTRACK_LAUNCHED_FROM", os.path.dirname(path))
    elif not any(map(os.environ.get, _SWITCHES)):
        return
    start()
