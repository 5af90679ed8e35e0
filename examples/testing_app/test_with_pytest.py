"""Tests with the fixture `captured_events`, which pytest finds by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import post_export, post_invitation

if TYPE_CHECKING:
    from ts_autotrack.testing import Events


def test_an_export_is_a_use_of_the_feature(captured_events: Events) -> None:
    """The use belongs to the user and the account of the request."""
    assert post_export("ann", "acme", 7) == 200

    event = captured_events.one("report_export")
    assert (event.user_id, event.group_id) == ("ann", "acme")
    assert event.properties["file_format"] == "pdf"


def test_a_failed_export_is_no_use(captured_events: Events) -> None:
    """A view that does not succeed sends no event."""
    assert post_export("ann", "acme", 8) == 404
    assert captured_events.all == []


def test_an_invitation_is_an_event(captured_events: Events) -> None:
    """Each invitation names the role."""
    post_invitation("ann", "admin")
    post_invitation("bob", "guest")

    assert [event.properties["role"] for event in captured_events.named("invite_sent")] == ["admin", "guest"]
    assert len(captured_events.for_user("bob")) == 1
