"""The command `ts-autotrack`."""

from ts_autotrack.cli._main import main

__all__ = ["main"]
