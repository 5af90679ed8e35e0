"""The mechanism behind each tracked callable, for reports."""

from __future__ import annotations

MAX_NOTES = 500
"""Callables that are kept: a program may decorate closures without end."""

_notes: dict[str, tuple[str, str]] = {}


def note(place: str, feature: str, mechanism: str) -> None:
    """Keep the mechanism of a callable that is decorated.

    Args:
        place: Place in the application, such as "module.function, line 5".
        feature: Name of the feature.
        mechanism: "watched", "watched in place" or "wrapped".
    """
    if place in _notes or len(_notes) < MAX_NOTES:
        _notes[place] = feature, mechanism


def known() -> list[tuple[str, str, str]]:
    """Return place, feature and mechanism of the callables decorated so far, up to `MAX_NOTES`."""
    return [(place, *kept) for place, kept in list(_notes.items())]
