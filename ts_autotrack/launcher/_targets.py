"""The functions that the setting `features` names."""

from __future__ import annotations

from typing import NamedTuple


class TargetStatus(NamedTuple):
    """State of one key of the setting `features` that names a function.

    Attributes:
        key: The key, such as "myapp.reports:export".
        feature: Name of the feature.
        state: "waiting" for the import of the module, "tracked", "missing" in the module, "not callable", or "failed".
        mechanism: "watched in place", "watched" or "wrapped"; empty if not tracked.
        why: Reason for the state or the mechanism; empty if there is nothing to say.
    """

    key: str
    feature: str
    state: str
    mechanism: str
    why: str


def statuses() -> list[TargetStatus]:
    """Return the state of each function that the settings name, by key."""
    return []
