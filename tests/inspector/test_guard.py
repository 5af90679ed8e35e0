"""Requests that are refused before they reach the inspector: foreign hosts, foreign pages, endless bodies."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.inspector.conftest import KEY, TRACK, post
from ts_autotrack.inspector._contract import MAX_BODY

if TYPE_CHECKING:
    from tests.conftest import Inspector


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8787", "LOCALHOST", "[::1]:80", "127.0.0.1:1"])
def test_names_of_this_machine_are_answered(inspector: Inspector, host: str) -> None:
    """The inspector answers to 127.0.0.1, localhost and [::1], with any port: a container maps ports."""
    assert httpx.get(f"{inspector.url}/events", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "127.0.0.1:80@evil", "[::2]"]
)
def test_foreign_host_is_misdirected(inspector: Inspector, host: str) -> None:
    """A name that resolves to this machine for a page of another site (DNS rebinding) gets 421 and no event."""
    answer = httpx.get(f"{inspector.url}/events", headers={"host": host})
    assert answer.status_code == 421
    assert "127.0.0.1, localhost and [::1]" in answer.text


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1.evil.example", "null", "file://", "ext://localhost"]
)
def test_foreign_page_is_refused(inspector: Inspector, origin: str) -> None:
    """A form or script of another site's page gets 403; nothing is kept and no fault is set."""
    answer = post(inspector, "/track", [TRACK], {**KEY, "origin": origin})
    assert answer.status_code == 403
    assert "no web page of another site" in answer.text
    faults = httpx.put(f"{inspector.url}/faults?fault=503", headers={"origin": origin})
    assert faults.status_code == 403
    assert inspector.items() == []
    assert httpx.get(f"{inspector.url}/faults").json() == {"faults": []}


def test_images_and_scripts_of_a_foreign_page_are_refused(inspector: Inspector) -> None:
    """An image or script of another site's page, which has no Origin, gets 403 and holds no stream; a link works."""
    image = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    for path in ("/stream", "/events", "/events/latest?timeout=60"):
        assert httpx.get(inspector.url + path, headers=image).status_code == 403
    link = {**image, "sec-fetch-mode": "navigate"}
    assert httpx.get(inspector.url, headers=link).status_code == 200


def test_page_of_this_machine_is_answered(inspector: Inspector) -> None:
    """A front end under development, on another port of this machine, may send events."""
    assert post(inspector, "/track", [TRACK], {**KEY, "origin": "http://localhost:3000"}).status_code == 200


@pytest.mark.parametrize("faults", [{}, {"fault": "503=poison"}])
def test_body_is_cut_off_at_the_limit(inspector: Inspector, faults: dict[str, str]) -> None:
    """An endless body is refused at the contract's limit while it arrives, with and without active faults."""
    part = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    head = b"POST /api/track HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: k\r\ncontent-type: application/json\r\n"
    host, port = inspector.url.removeprefix("http://").split(":")
    httpx.put(f"{inspector.url}/faults", params=faults)
    try:
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
            sent = 0
            while not select.select([client], [], [], 0)[0] and sent < 100 * MAX_BODY:
                client.sendall(part)
                sent += len(part)
            answer = client.recv(65_536)
            while b"}" not in answer:
                answer += client.recv(65_536)
    finally:
        httpx.put(f"{inspector.url}/faults")
    assert sent < 100 * MAX_BODY
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"at most 2000000 are allowed" in answer


def test_root_says_where_the_events_are(inspector: Inspector) -> None:
    """GET / names the inspector, the address of the events and the variable for an app."""
    text = httpx.get(f"{inspector.url}/").text
    assert text.startswith("ts-autotrack inspector")
    assert f"{inspector.url}/events" in text
    assert f"THRIVESTACK_ENDPOINT={inspector.url}/api" in text


@pytest.mark.parametrize(
    "query",
    [
        "after=-1",
        "after=-99999999999999999999999",
        "limit=-1",
        "limit=1_0",
        "limit=%D9%A1",
        "after=",
        "after=1.5",
        "limit=" + "9" * 5_000,
        "limit=1&limit=2",
        "user_id=a&user_id=b",
        "path=/events",
        "nonsense=1",
    ],
)
def test_bad_query_of_events_is_400(inspector: Inspector, query: str) -> None:
    """A query value without a meaning is refused with the reason."""
    answer = httpx.get(f"{inspector.url}/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["message"]


def test_bad_query_of_faults_changes_nothing(inspector: Inspector) -> None:
    """A misspelled parameter of PUT /faults is refused; the active faults stay."""
    httpx.put(f"{inspector.url}/faults?fault=503")
    try:
        answer = httpx.put(f"{inspector.url}/faults?fautl=500")
        assert answer.status_code == 400
        assert "unknown parameter 'fautl'; known are fault" in answer.json()["message"]
        assert [fault["kind"] for fault in httpx.get(f"{inspector.url}/faults").json()["faults"]] == ["503"]
    finally:
        httpx.put(f"{inspector.url}/faults")


def test_printed_events_are_one_line_each() -> None:
    """Contents of events send no command to the terminal of the inspector, and forge no line."""
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        process.stdout.readline()
        item = {**TRACK, "event_name": "e\n[ts_autotrack] forged \x1b]0;owned\x07 \x9b2J\x7f"}
        httpx.post(f"{url}/api/track", json=[item, {**TRACK, "event_name": "next"}], headers=KEY)
        first, second = process.stdout.readline(), process.stdout.readline()
        assert r"e\n[ts_autotrack] forged \x1b]0;owned\x07 \x9b2J\x7f" in first
        assert first.rstrip("\n").isprintable()
        assert " next " in second
        process.terminate()
