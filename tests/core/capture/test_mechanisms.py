"""The mechanism behind each decorated callable."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ts_autotrack import track_feature
from ts_autotrack._core.capture import mechanisms

if TYPE_CHECKING:
    import pytest


def test_mechanisms_are_known_by_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each decoration is noted with its place, feature and mechanism, up to a bound."""
    monkeypatch.setattr(mechanisms, "_notes", {})

    @track_feature
    def search() -> None: ...

    @track_feature("export", capture=["file_format"])
    def export(file_format: str) -> None: ...

    track_feature("absolute")(abs)
    watched = "watched" if sys.version_info >= (3, 12) else "wrapped"
    assert [rest for _, *rest in mechanisms.known()] == [
        ["search", watched],
        ["export", "wrapped"],
        ["absolute", "wrapped"],
    ]
    place = f"{search.__module__}.{search.__qualname__}, line {search.__code__.co_firstlineno}"
    assert mechanisms.known()[0][0].partition(", line")[0] == place.partition(", line")[0]
    for number in range(mechanisms.MAX_NOTES + 1):
        mechanisms.note(f"place {number}", "feature", "wrapped")
    assert len(mechanisms.known()) == mechanisms.MAX_NOTES
