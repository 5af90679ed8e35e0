"""Helper of the identity tests: the users of the arrived events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack import flush

if TYPE_CHECKING:
    from tests.conftest import Inspector


def users(inspector: Inspector) -> list[tuple[str, str, str | None]]:
    """Return event name, user and group of each arrived event."""
    assert flush(10)
    return [(i["event_name"], i["user_id"], i["context"].get("group_id")) for i in inspector.items()]
