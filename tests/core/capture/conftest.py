"""Fixtures of the tests of capture."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True)
def collected() -> None:
    """Collect what earlier tests have dropped: a collected generator makes its event."""
    gc.collect()
