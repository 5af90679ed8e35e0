"""The one entry of programs whose code is left alone: activates features, integrations and the user by the settings."""

from __future__ import annotations


def activate() -> None:
    """Read the settings, and prepare the import of the modules that they name. A second call does nothing.

    Never raises: a fault is one warning. An inactive library (disabled, or with the exporter "none") prepares nothing.
    """
