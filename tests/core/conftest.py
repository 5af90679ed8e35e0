"""Fixtures and helpers of the engine's tests: an acting user, arrived events, and the account."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import wait_until
from ts_autotrack import flush, stats, user_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conftest import Inspector
    from ts_autotrack.typing import Stats


@pytest.fixture
def acting() -> Iterator[None]:
    """Set a user and an account for the test."""
    with user_context("user_1", group_id="account_1"):
        yield


def arrived(inspector: Inspector) -> list[dict[str, Any]]:
    """Return the properties of the arrived events."""
    assert flush(10)
    return [item["properties"] for item in inspector.items()]


def frames_of_ours(error: BaseException) -> list[str]:
    """Return the library's lines in a traceback. Python 3.10 re-raises a saved exception, and keeps a line for each
    decorator.
    """
    names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    ours = [name for name in names if "ts_autotrack/_" in name or "<ts_autotrack" in name]
    return ours if sys.version_info >= (3, 11) else ours[2:]


def account_closes() -> Stats:
    """Return the stats once their sum is right, without the state of the queue: a batch that moves now counts twice."""

    def closed() -> Stats | None:
        now = stats()._replace(in_flight=0, capacity=0)
        ends = now.delivered + now.pending + now.rejected + sum(now.dropped.values())
        return now if now.accepted == ends else None

    account: Stats = wait_until(closed, "the account closes")
    return account


def names(items: Sequence[dict[str, Any]]) -> list[str]:
    """Return the events' names."""
    return [item["event_name"] for item in items]
