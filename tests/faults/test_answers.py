"""Every kind of answer has its own treatment, and no answer loses an event."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.faults._programs import REPORT, numbers

if TYPE_CHECKING:
    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

APP = (
    REPORT
    + """
import sys
from ts_autotrack import flush, stats, track, user_context
with user_context("u", group_id="g"):
    for n in range(30): track("e", {"n": n, "text": "poison" if n == 17 else "fine"})
print(flush(0.3), flush(0.1), flush=True)
sys.stdin.readline()
print(flush(20), stats().rejected)
"""
)


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("answers 500", "500", "cannot be delivered at the moment"),
        ("answers 503 with `Retry-After`", "503", "cannot be delivered at the moment"),
        ("answers 429 with `Retry-After`", "429", "cannot be delivered at the moment"),
        ("answers 408", "408", "cannot be delivered at the moment"),
        ("resets the connection", "reset", "cannot be delivered at the moment"),
        ("never answers", "hang", "cannot be delivered at the moment"),
        ("takes the events, and its answer is lost", "lost", "cannot be delivered at the moment"),
        ("answers 401", "401", "Check THRIVESTACK_API_KEY"),
        ("answers 403", "403", "Check THRIVESTACK_API_KEY"),
        ("answers 302", "302", "Check THRIVESTACK_ENDPOINT"),
        ("answers 404", "404", "Check THRIVESTACK_ENDPOINT"),
        ("is a proxy's login page", "html", "Check THRIVESTACK_ENDPOINT"),
    ],
)
def test_server_that_is_well_again_gets_everything(
    inspector: Inspector, environment: dict[str, str], guarantee: Any, kept: str, name: str, fault: str, said: str
) -> None:
    """A failing server is reported once, and all events arrive after its recovery."""
    httpx.put(f"{inspector.url}/faults", params={"fault": fault})
    target = {"THRIVESTACK_ENDPOINT": inspector.endpoint, "TS_AUTOTRACK_REQUEST_TIMEOUT": "0.3", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", APP],
        env={**os.environ, **target},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        try:
            assert process.stdout.readline() == "False False\n"
            assert any(said in line for line in process.stderr)
        finally:
            too_late.cancel()
            httpx.put(f"{inspector.url}/faults")
        output, errors = process.communicate("\n", timeout=60)
    assert output == "True 0\n", errors
    assert said not in errors, "said twice"
    guarantee(f"a server that {name}", kept, range(30), numbers(inspector), twice=fault == "lost")
    ids = {item["context"]["event_id"] for item in inspector.items()}
    assert len(ids) == 30


@pytest.mark.parametrize("status", ["400", "413", "422"])
def test_server_that_refuses_one_item(
    inspector: Inspector, environment: dict[str, str], guarantee: Any, kept: str, status: str
) -> None:
    """An item refused for good is found and set aside; all other items are delivered."""
    httpx.put(f"{inspector.url}/faults", params={"fault": f"{status}=poison"})
    try:
        done = subprocess.run(
            [sys.executable, "-c", APP],
            env={**os.environ, **environment, "THRIVESTACK_ENDPOINT": inspector.endpoint},
            input="\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        httpx.put(f"{inspector.url}/faults")
    assert done.stdout.splitlines()[-1] == "True 1", done.stderr
    assert f"{status}: " in done.stderr
    guarantee(f"one item that is answered with {status}, the rest", kept, {*range(30)} - {17}, numbers(inspector))


SEARCHED = (
    REPORT
    + """
import time
from ts_autotrack import flush, stats, track, user_context
from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.backoff import Pacing
client.pacing = Pacing(first_backoff=0.1, isolation=0.2)
number = 0
def good():
    global number
    track("e", {"n": number})
    number += 1
with user_context("u", group_id="g"):
    for _ in range(30): good()
    track("e", {"text": "poison"})
    deadline = time.monotonic() + 60
    while not stats().rejected and time.monotonic() < deadline:
        for _ in range(10): good()
        flush(0.2)
print(flush(20), stats().rejected, number)
"""
)


@pytest.mark.parametrize("fault", ["403", "404", "500", "reset"])
def test_server_that_fails_at_one_item(
    inspector: Inspector, environment: dict[str, str], guarantee: Any, kept: str, fault: str
) -> None:
    """An item that makes its request fail is found by requests without the item; all other items are delivered."""
    httpx.put(f"{inspector.url}/faults", params={"fault": f"{fault}=poison"})
    try:
        done = subprocess.run(
            [sys.executable, "-c", SEARCHED],
            env={**os.environ, **environment, "THRIVESTACK_ENDPOINT": inspector.endpoint},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        httpx.put(f"{inspector.url}/faults")
    settled, rejected, number = done.stdout.split()
    assert (settled, rejected) == ("True", "1"), done.stderr
    name = f"one item that makes its requests fail ({fault}), the rest"
    guarantee(name, kept, range(int(number)), numbers(inspector), counted=False)
