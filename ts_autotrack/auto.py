"""Tracking by settings alone: `import ts_autotrack.auto` as the first line of a program.

Activates the features, the integrations and the user that the settings name, as `ts-autotrack run` does.

Example:
    >>> import ts_autotrack.auto
"""

from ts_autotrack.launcher._activation import activate

activate()
