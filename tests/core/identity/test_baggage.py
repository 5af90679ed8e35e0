"""OpenTelemetry baggage as the fallback for identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context

from tests.core.identity.conftest import users
from ts_autotrack import configure, track, user_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


@pytest.fixture
def carried() -> Iterator[None]:
    """Baggage as carried by an inbound request."""
    token = context.attach(baggage.set_baggage("user.id", "from_baggage"))
    inner = context.attach(baggage.set_baggage("tenant.id", "tenant"))
    yield
    context.detach(inner)
    context.detach(token)


@pytest.mark.usefixtures("carried")
def test_baggage_is_the_fallback(inspector: Inspector) -> None:
    """Baggage gives the ids missing elsewhere, and the event says so. The account of another user is none of them."""
    track("baggage")
    track("baggage")
    with user_context("from_baggage"):
        track("user")
    with user_context("another"):
        track("another")
    with user_context("u", group_id="g"):
        track("both")
    track("own", user_id="own", group_id="own")
    assert users(inspector) == [
        ("baggage", "from_baggage", "tenant"),
        ("baggage", "from_baggage", "tenant"),
        ("user", "from_baggage", "tenant"),
        ("another", "another", None),
        ("both", "u", "g"),
        ("own", "own", "own"),
    ]
    sources = [item["context"].get("identity_source") for item in inspector.items()]
    assert sources == ["baggage", "baggage", "baggage", None, None, None]


@pytest.mark.usefixtures("carried")
def test_baggage_can_be_turned_off(inspector: Inspector) -> None:
    """With BAGGAGE off, an outside caller cannot name the user."""
    configure(baggage=False)
    track("baggage")
    assert users(inspector) == []


@pytest.mark.parametrize("value", ["x" * 257, "  ", 7])
def test_strange_baggage_is_no_identity(inspector: Inspector, value: Any) -> None:
    """An id in baggage is a text of at most 256 characters; the next key in the list is tried."""
    token = context.attach(baggage.set_baggage("user.id", value))
    track("strange")
    inner = context.attach(baggage.set_baggage("enduser.id", "second"))
    track("second")
    context.detach(inner)
    context.detach(token)
    other = context.attach(baggage.set_baggage("unrelated", "x"))
    track("none")
    context.detach(other)
    assert users(inspector) == [("second", "second", None)]
