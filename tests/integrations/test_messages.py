"""Identity to headers and back, as the integrations of task queues use it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from ts_autotrack import bind_user, current_user, request_scope, suppress, track, user_context
from ts_autotrack.integrations._messages import LONGEST, Carrier, MessageScope

if TYPE_CHECKING:
    from tests.conftest import Inspector


def test_identity_goes_along() -> None:
    """User, account, and named values of properties and context arrive; no others leave."""
    carrier = Carrier(["plan", "session_id", "absent"])
    with user_context("u", group_id="g", session_id="s", plan="pro", user_email="u@example.com"):
        header = carrier.header()
    assert header is not None
    assert "example.com" not in header
    with MessageScope(header):
        assert current_user() == ("u", "g", {"session_id": "s"}, {"plan": "pro"}, "resolver", False)
    assert current_user().user_id is None


def test_resolver_of_the_publishing_request_is_asked() -> None:
    """A task published before the first event of a request belongs to the request's user."""
    with request_scope(lambda: ("u", "g")):
        assert Carrier().header() == '{"user_id": "u", "group_id": "g"}'


def test_nobody_has_no_header() -> None:
    """Nothing is added to a message if nobody is known; the message starts with nobody, whoever acts around it."""
    assert Carrier().header() is None
    with user_context("other", group_id="g"), MessageScope(None):
        assert current_user().user_id is None


def test_suppression_goes_along(inspector: Inspector) -> None:
    """Events of a message published inside `suppress` are dropped, too."""
    with user_context("u"), suppress():
        header = Carrier().header()
    with MessageScope(header):
        track("used")
        bind_user("v")
        track("used")
    with MessageScope(None):
        assert not current_user().suppressed
    assert inspector.get() == []


def test_binding_ends_with_the_message() -> None:
    """`bind_user` inside a message holds until its end."""
    with user_context("outer"):
        with MessageScope('{"user_id": "u"}'):
            bind_user("v")
            assert current_user().user_id == "v"
        assert current_user().user_id == "outer"


@pytest.mark.parametrize(
    "header", ["", "no JSON", "[1]", '{"user_id": 5}', '{"group_id": []}', b"\xff", 5, object(), "[" * 100_000]
)
def test_unreadable_header_is_nobody(header: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A header that no Carrier has written names nobody, with one warning for each kind of fault."""
    for _ in range(2):
        with MessageScope(header):
            assert current_user().user_id is None
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


def test_long_properties_stay() -> None:
    """Properties that make the header long are left out; the ids go along."""
    with user_context("u", note="x" * LONGEST):
        assert json.loads(Carrier(["note"]).header() or "") == {"user_id": "u"}


def test_values_without_json_form_become_text() -> None:
    """Every value arrives in some form."""
    with user_context("u", code=b"\x00"):
        assert json.loads(Carrier(["code"]).header() or "")["code"]


@pytest.mark.parametrize(("names", "error"), [("plan", TypeError), (["user_id"], ValueError)])
def test_wrong_names_raise(names: Any, error: type[Exception]) -> None:
    """A single text, and the header's own keys, are refused with the reason."""
    with pytest.raises(error, match="properties="):
        Carrier(names)
