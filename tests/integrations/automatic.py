"""Frameworks tracked by themselves, for the tests of automatic integrations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import ts_autotrack
from ts_autotrack.integrations import _automatic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import Inspector


def track(name: str, features: Mapping[str, str] | None = None, user: Callable[..., Any] | None = None) -> None:
    """Track a framework by itself, with features by key."""
    tables = {key: {"feature": value} for key, value in (features or {}).items()}
    assert _automatic.activate(name, tables, user) is None


def events(inspector: Inspector) -> list[tuple[str, str]]:
    """Return feature (or name) and user of all events that arrived, sorted."""
    assert ts_autotrack.flush(10)
    return sorted(
        (item["properties"].get("feature_name", item["event_name"]), item["user_id"]) for item in inspector.items()
    )


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """Undo the automatic integrations after the test."""
    yield
    _automatic.deactivate()
