"""The vendor's contract: every rule has its refusal, and valid requests pass."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.inspector.conftest import GROUP, KEY, TRACK, WHEN, post

if TYPE_CHECKING:
    from tests.conftest import Inspector


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": ""}, {"authorization": "Basic abc"}, {"authorization": "Bearer"}]
)
def test_no_credentials_is_401(inspector: Inspector, headers: dict[str, str]) -> None:
    """Without either of the two documented headers nothing is accepted."""
    answer = httpx.post(inspector.endpoint + "/track", json=[TRACK], headers=headers)
    assert answer.status_code == 401
    assert "no credentials" in answer.json()["message"]
    assert inspector.items() == []


@pytest.mark.parametrize("headers", [KEY, {"authorization": "Bearer t"}, {"Authorization": "bearer t"}])
def test_either_header_will_do(inspector: Inspector, headers: dict[str, str]) -> None:
    """A key or a bearer token is enough; the answer has the vendor's form."""
    answer = post(inspector, "/track", [TRACK], headers)
    assert answer.status_code == 200
    body = answer.json()
    assert body["success"] is True
    assert len(body["response_id"]) == 36
    assert body["warnings"] == ["Field 'context.group_id' is missing and may affect account-level reports"]
    assert inspector.items() == [TRACK]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/track", TRACK, "the body must be a JSON array, even for one item"),
        ("/track", b"{", "the body is not JSON"),
        ("/track", b'[{"a": NaN}]', "NaN is no JSON value"),
        ("/track", b"\xff", "the body is not JSON"),
        ("/track", b"[" * 100_000, "the body is not JSON"),
        ("/track", [TRACK] * 1_001, "the array has 1001 items; at most 1000 are allowed"),
        ("/track", [{**TRACK, "properties": {"x": "y" * 2_000_000}}], "at most 2000000 are allowed"),
        ("/track", [TRACK, "x"], "item 1: must be an object, not a text"),
        ("/track", [{**TRACK, "event_name": ""}], "item 0: field 'event_name': must be a text, not an empty text"),
        ("/track", [{**TRACK, "user_id": 7}], "item 0: field 'user_id': must be a text, not a number"),
        ("/track", [{k: v for k, v in TRACK.items() if k != "user_id"}], "item 0: field 'user_id': is required"),
        ("/track", [TRACK, {**TRACK, "properties": []}], "item 1: field 'properties': must be an object, not an array"),
        ("/track", [{**TRACK, "context": None}], "item 0: field 'context': must be an object, not null"),
        (
            "/track",
            [{**TRACK, "timestamp": "2024-10-20T15:51:36Z"}],
            "field 'timestamp': '2024-10-20T15:51:36Z' is not",
        ),
        ("/track", [{**TRACK, "timestamp": "2024-13-20T15:51:36.514000Z"}], "field 'timestamp'"),
        (
            "/track",
            [{**TRACK, "context": {"group_id": ["g"]}}],
            "field 'context.group_id': must be a text, not an array",
        ),
        ("/track", [{**TRACK, "context": {"event_id": {}}}], "field 'context.event_id': must be a text, not an object"),
        ("/track", b'[{"a": 1e999}]', "1e999 is beyond the range of a number"),
        ("/track", [{**TRACK, "user_id": "\ud800"}], "item 0: holds a lone surrogate"),
        ("/identify", [{"user_id": "u"}], "item 0: field 'timestamp': is required"),
        ("/identify", [{"user_id": "u", "timestamp": WHEN, "traits": True}], "not a truth value"),
        ("/group", [{**GROUP, "group_id": None}], "item 0: field 'group_id': must be a text, not null"),
        ("/group", [{**GROUP, "traits": {}}], "item 0: field 'traits.group_type': is required"),
        ("/group", [{**GROUP, "context": {"group_id": "h"}}], "field 'context.group_id': must equal"),
    ],
)
def test_what_the_contract_forbids_is_400_and_says_where(
    inspector: Inspector, path: str, body: Any, message: str
) -> None:
    """Each rule of the contract has its refusal, naming item and field; nothing of the request is kept."""
    answer = post(inspector, path, body)
    assert answer.status_code == 400
    assert message in answer.json()["message"]
    assert inspector.items() == []


def test_the_limits_themselves_are_allowed(inspector: Inspector) -> None:
    """Requests with 1,000 items or 2,000,000 bytes pass."""
    assert post(inspector, "/track", [TRACK] * 1_000).status_code == 200
    empty = json.dumps([{**TRACK, "properties": {"x": ""}}]).encode()
    full = json.dumps([{**TRACK, "properties": {"x": "y" * (2_000_000 - len(empty))}}]).encode()
    assert len(full) == 2_000_000
    assert post(inspector, "/track", full).status_code == 200
    assert post(inspector, "/track", full + b" ").status_code == 400


def test_content_type_is_required(inspector: Inspector) -> None:
    """The contract's content type is required."""
    answer = post(inspector, "/track", [TRACK], {**KEY, "content-type": "text/plain"})
    assert answer.status_code == 400
    assert "application/json" in answer.json()["message"]


def test_unknown_fields_are_warned_of(inspector: Inspector) -> None:
    """A field unknown to the contract is accepted with a warning."""
    answer = post(inspector, "/identify", [{"user_id": "u", "timestamp": WHEN, "trait": {}}])
    assert answer.json()["warnings"] == ["Field 'trait' is unknown and is ignored"]
