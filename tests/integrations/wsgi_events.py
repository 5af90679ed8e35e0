"""Events of requests to WSGI and Flask applications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

import ts_autotrack

if TYPE_CHECKING:
    from tests.conftest import Inspector


def events(inspector: Inspector) -> list[tuple[str, str]]:
    """Return name (of the feature, if any) and user of all events."""
    assert ts_autotrack.flush()
    return [(item["properties"].get("feature_name", item["event_name"]), item["user_id"]) for item in inspector.items()]


def header_user() -> str | None:
    """Return the user that the request names."""
    return request.headers.get("X-User")


def as_user(name: str) -> dict[str, str]:
    """Return the headers of a user's request."""
    return {"X-User": name}
