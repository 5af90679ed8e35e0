"""Faults of the inspector, set on the command line and by PUT /faults."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.inspector.conftest import KEY, TRACK, post

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


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
