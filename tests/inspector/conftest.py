"""Items and requests of the inspector's tests."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import DEADLINE

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


class Command(subprocess.Popen[str]):
    """A process that is killed at the end of its block: a failed test waits for none, and leaves none behind."""

    def __exit__(self, *error: object) -> None:
        self.kill()
        super().__exit__(*error)  # type: ignore[arg-type]  # passed on as they come


class Stream:
    """A reader of GET /stream."""

    def __init__(self, url: str, last_event_id: str = "") -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self._connection.request("GET", "/stream", headers=headers)
        self._answer = self._connection.getresponse()
        self.last_id = last_event_id

    def message(self) -> tuple[str, Any]:
        """Return the event and the data of the next message; ("end", None) at the end of the stream."""
        fields: dict[str, str] = {}
        end = time.monotonic() + DEADLINE
        while line := self._answer.readline().decode():
            assert time.monotonic() < end, "no message but comments"
            name, _, value = line.rstrip("\n").partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                self.last_id = fields["id"]
                return fields["event"], json.loads(fields["data"])
        return "end", None

    def skip_state(self, *, hello: bool = True) -> None:
        """Read the messages with which each stream begins."""
        assert not hello or self.message()[0] == "hello"
        while (event := self.message()[0]) != "faults":
            assert event != "end"

    def entries(self, number: int) -> list[dict[str, Any]]:
        """Return the next entries, in one message or several."""
        found: list[dict[str, Any]] = []
        while len(found) < number:
            event, data = self.message()
            assert event != "end"
            if event in ("item", "refused", "batch"):
                found += data if event == "batch" else [data]
        return found

    def close(self) -> None:
        """Go away."""
        self._answer.close()
        self._connection.close()

    def __enter__(self) -> Stream:  # noqa: PYI034 - `Self` is in typing from 3.11 on
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(inspector: Inspector, path: str, **query: Any) -> Any:
    """Return the answer to a GET request that succeeds."""
    answer = httpx.get(inspector.url + path, params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def cleared(inspector: Inspector) -> Inspector:
    """The inspector without any entry, by DELETE /events."""
    assert httpx.delete(f"{inspector.url}/events").status_code == 200
    return inspector
