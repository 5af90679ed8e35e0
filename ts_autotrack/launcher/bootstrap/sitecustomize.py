"""Runs first in every interpreter below `ts-autotrack run`: loads the next sitecustomize, then starts the library.

PYTHONPATH reaches interpreters of every version and environment. So this file has the syntax of Python 2, too, and does
nothing but load the next sitecustomize where the library is absent.
"""

import os
import sys

_folder = os.path.dirname(os.path.abspath(__file__))
_own = sys.modules.pop("sitecustomize", None)
_index = next((i for i, entry in enumerate(sys.path) if os.path.abspath(entry) == _folder), 0)
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _folder]
try:
    # Debian's, another launcher's or the user's own. Its settings of the environment count, and its exceptions end
    # where they would end without this file: Python reports them and goes on.
    import sitecustomize  # noqa: F401
except ImportError as error:
    if getattr(error, "name", "sitecustomize") != "sitecustomize":
        raise
finally:
    # Programs hand `sys.path` to their children, so the folder stays there.
    sys.path.insert(_index, _folder)
    if _own is not None:
        sys.modules.setdefault("sitecustomize", _own)
    if sys.version_info >= (3, 10):  # older ones cannot have the library
        from _ts_autotrack_start import start

        start()
