"""The inspector: strict about the contract, and useful to a person."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


def start(*options: str) -> tuple[subprocess.Popen[str], str]:
    """Start an inspector; return the process and its URL."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[3]


def test_command_prints_events_and_keeps_them_in_sqlite(tmp_path: Path) -> None:
    """Each event is printed on arrival; the file is a SQLite database, which survives the process."""
    database = tmp_path / "events.db"
    process, url = start("--port", "0", "--db", str(database))
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == f"export THRIVESTACK_ENDPOINT={url}/api\n"
        httpx.post(f"{url}/track", json=[TRACK], headers=KEY)
        assert process.stdout.readline() == f"[ts_autotrack] {WHEN} e user=u group=None {{}}\n"
        httpx.post(f"{url}/track", json=[{}], headers=KEY)
        assert process.stdout.readline() == "/track refused with 400: item 0: field 'event_name': is required\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT path, event_name, user_id FROM events").fetchall() == [("/track", "e", "u")]
    connection.close()


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    """A taken port and a bad file are explained in a line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, message in (
            (["--port", port], f"cannot listen on port {port}: Address already in use"),
            (["--port", "0", "--db", str(tmp_path)], "cannot keep events in"),
            (["--port", "70000"], "a port is a whole number from 0 to 65535"),
        ):
            command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode != 0
            assert message in done.stderr
            assert "Traceback" not in done.stderr


def test_missing_extra_is_named() -> None:
    """Without Starlette, the command names the packages to install."""
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from ts_autotrack.cli import main; sys.exit(main(['inspect', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'ts_autotrack[inspector]'" in done.stderr


@pytest.fixture
def faulty(inspector: Inspector) -> Iterator[Inspector]:
    """The inspector; its faults end with the test."""
    yield inspector
    httpx.put(f"{inspector.url}/faults")


def set_faults(inspector: Inspector, *faults: str) -> httpx.Response:
    """Replace the inspector's faults."""
    return httpx.put(f"{inspector.url}/faults", params={"fault": list(faults)})


@pytest.mark.parametrize("status", [302, 304, 400, 429, 503, 599])
def test_fault_of_a_status(faulty: Inspector, status: int) -> None:
    """A request gets the fault's status, and no event is taken, until the fault is removed."""
    assert set_faults(faulty, str(status)).json() == {"faults": [{"kind": str(status), "probability": 1.0, "text": ""}]}
    answer = post(faulty, "/track", [TRACK])
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) is (status in (429, 503))
    assert faulty.items() == []
    assert set_faults(faulty).json() == {"faults": []}
    assert post(faulty, "/track", [TRACK]).status_code == 200
    assert len(faulty.items()) == 1


@pytest.mark.parametrize(("fault", "taken"), [("reset", 0), ("lost", 1)])
def test_faults_that_give_no_answer(faulty: Inspector, fault: str, taken: int) -> None:
    """The connection is reset, before or after the events are taken."""
    set_faults(faulty, fault)
    with pytest.raises(httpx.RemoteProtocolError):
        post(faulty, "/track", [TRACK])
    assert len(faulty.items()) == taken


def test_faults_that_take_time(faulty: Inspector) -> None:
    """`hang` never answers; `slow` takes the events and answers after a second."""
    set_faults(faulty, "hang")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{faulty.endpoint}/track", json=[TRACK], headers=KEY, timeout=0.3)
    set_faults(faulty, "slow")
    answer = post(faulty, "/track", [TRACK])
    assert (answer.status_code, answer.elapsed.total_seconds() >= 1) == (200, True)
    assert len(faulty.items()) == 1


def test_fault_of_a_login_page(faulty: Inspector) -> None:
    """`html` is a proxy's login page."""
    set_faults(faulty, "html")
    answer = post(faulty, "/track", [TRACK])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
    assert faulty.items() == []


def test_faults_that_hit_some_requests(faulty: Inspector) -> None:
    """A fault may hit only requests with a given text, or a share of all requests; the first matching fault applies."""
    set_faults(faulty, "422=poison", "503:0", "500:1")
    assert post(faulty, "/track", [{**TRACK, "event_name": "poison"}]).status_code == 422
    assert post(faulty, "/track", [TRACK]).status_code == 500
    set_faults(faulty, "503:0.5")
    statuses = [post(faulty, "/track", [TRACK]).status_code for _ in range(60)]
    assert set(statuses) == {200, 503}


@pytest.mark.parametrize("text", ["boom", "200", "600", "503:2", "503:x", "reset:nan"])
def test_what_is_no_fault_is_said(faulty: Inspector, text: str) -> None:
    """The option and PUT /faults refuse an invalid fault, and name the valid form."""
    answer = set_faults(faulty, text)
    assert answer.status_code == 400
    assert "is no fault; expected KIND" in answer.text
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--fault", text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is no fault; expected KIND" in done.stderr


def test_fault_from_the_start() -> None:
    """`--fault` on the command line holds from the first request on, and each hit is shown."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--fault", "503"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        process.stdout.readline()
        assert httpx.post(f"{url}/api/track", json=[TRACK], headers=KEY).status_code == 503
        assert process.stdout.readline() == "/api/track hit by fault 503\n"
        process.terminate()


def test_client_that_goes_away_is_no_error() -> None:
    """A process killed in the middle of its request leaves no traceback in the inspector's output."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().split()[3]
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
            client.sendall(b"POST /api/track HTTP/1.1\r\nhost: x\r\nx-api-key: k\r\ncontent-length: 100\r\n\r\n[{")
        assert httpx.post(f"{url}/api/track", json=[TRACK], headers=KEY).status_code == 200
        process.terminate()
        assert process.stderr.read() == ""
