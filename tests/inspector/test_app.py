"""Requests other than events to take: queries, and clients which go away."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx

from tests.inspector.conftest import GROUP, KEY, TRACK, post

if TYPE_CHECKING:
    from tests.conftest import Inspector


def test_events_can_be_asked_for(inspector: Inspector) -> None:
    """GET /events filters and pages, and refuses unknown parameters."""
    post(inspector, "/track", [{**TRACK, "event_name": name, "user_id": user} for name, user in ("ax", "bx", "ay")])
    post(inspector, "/group", [GROUP])
    assert [event["path"] for event in inspector.get()] == ["/track"] * 3 + ["/group"]
    assert [item["user_id"] for item in inspector.items(event_name="a")] == ["x", "y"]
    assert len(inspector.get(path="/track", user_id="x", limit=1)) == 1
    first = inspector.get(limit=1)[0]
    assert inspector.get(after=first["id"], limit=1)[0]["item"]["event_name"] == "b"
    assert inspector.get(after=9 * 10**30) == []
    for query, message in (("user=x", "unknown parameter 'user'"), ("limit=all", "whole numbers")):
        answer = httpx.get(f"{inspector.url}/events?{query}")
        assert answer.status_code == 400
        assert message in answer.json()["message"]


def test_client_that_goes_away_is_no_error() -> None:
    """A process killed in the middle of its request leaves no traceback in the inspector's output."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[3]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(
                b"POST /api/track HTTP/1.1\r\nhost: localhost\r\nx-api-key: k\r\ncontent-length: 100\r\n\r\n[{"
            )
        assert httpx.post(f"{url}/api/track", json=[TRACK], headers=KEY).status_code == 200
        process.terminate()
        assert process.stderr.read() == ""
