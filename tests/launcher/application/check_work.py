"""Tests of the application, run by its own pytest."""

import pytest
from work import perform


@pytest.mark.parametrize("number", range(3))
def test_export(number: int) -> None:
    """A report is exported."""
    perform(number)
