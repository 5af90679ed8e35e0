"""Items and requests of the inspector's tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from tests.conftest import Inspector


WHEN = "2024-10-20T15:51:36.514000Z"
TRACK = {"event_name": "e", "user_id": "u", "timestamp": WHEN}
GROUP = {"group_id": "g", "user_id": "u", "timestamp": WHEN, "traits": {"group_type": "Account"}}
KEY = {"x-api-key": "k"}


def post(inspector: Inspector, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a body; a body other than bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(
        inspector.endpoint + path, content=content, headers={"content-type": "application/json", **(headers or KEY)}
    )
