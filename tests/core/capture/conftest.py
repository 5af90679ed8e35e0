"""Fixtures of the tests of capture."""

from __future__ import annotations

import gc

import pytest

from ts_autotrack._core.capture import stack


@pytest.fixture(autouse=True)
def collected() -> None:
    """Collect and forget what earlier tests have dropped: a collected generator makes its event."""
    gc.collect()
    stack.followed.clear()  # of generators whose end Python did not report, by a closed event loop for example
    stack.additions.clear()
