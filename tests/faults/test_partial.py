"""Faults of a part: one endpoint, large batches, answers without acceptance, forks past Python's hooks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import WAIT_FOR_REST, Answer, Request, ScriptedServer, run_python
from tests.faults._programs import REPORT, numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

APP = (
    REPORT
    + """
import sys
from ts_autotrack import flush, identify, stats, track, user_context
with user_context("u", group_id="g"):
    for n in range(int(sys.argv[1])):
        if n % 10 == 7: identify({"n": n})
        else: track("e", {"n": n})
flush(3)
print(stats().delivered, flush=True)
sys.stdin.readline()
print(flush(30), stats().rejected)
"""
)

GATE = threading.Event()
"""Never set: a request that waits for it gets no answer in time."""


def away(request: Request) -> Answer:
    """Fail for one endpoint."""
    return Answer(503 if request.path.endswith("/identify") else 200)


def slow(request: Request) -> Answer:
    """Answer in time to small batches only."""
    return Answer(wait=GATE if len(request.items) > 60 else None)


FAULTS: dict[str, tuple[Callable[[Request], Answer], int, int, int]] = {
    "one endpoint that is away": (away, 30, 27, 0),
    "a server that answers `success: false`": (lambda _: Answer(200, b'{"success": false}'), 30, 0, 0),
    "a server that answers 207": (lambda _: Answer(207), 30, 0, 0),
    "a server that refuses everything, all but 20 items of each endpoint": (
        lambda _: Answer(400, b"archived"),
        60,
        0,
        26,
    ),
    "a server too slow for large batches": (slow, 200, 1, 0),
}
"""By name: the answers, the number of events, the events that arrive all the same, and the refused events."""


@pytest.mark.parametrize("name", FAULTS)
def test_part_that_fails(
    server: ScriptedServer, environment: dict[str, str], guarantee: Any, kept: str, name: str
) -> None:
    """The rest arrives meanwhile, and everything after the recovery, but for items that the server refused alone."""
    answer, count, meanwhile, refused = FAULTS[name]
    accepted: list[int] = []

    def always(request: Request) -> Answer:
        given = answer(request) if not recovered.is_set() else Answer()
        if given.status == 200 and given.wait is None and b"false" not in given.body:
            accepted.extend((item.get("properties") or item["traits"])["n"] for item in request.items)
        return given

    recovered = threading.Event()
    server.always = always
    target = {"THRIVESTACK_ENDPOINT": server.endpoint, "TS_AUTOTRACK_REQUEST_TIMEOUT": "0.5", **environment}
    with subprocess.Popen(
        [sys.executable, "-c", APP, str(count)],
        env={**os.environ, **target},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        too_late = threading.Timer(90, process.kill)
        too_late.start()
        assert process.stdout is not None
        assert int(process.stdout.readline()) >= meanwhile
        recovered.set()
        output, errors = process.communicate("\n", timeout=90)
        too_late.cancel()
    assert output == f"True {refused}\n", errors
    expected = set(range(count))
    if refused:
        assert len(expected - set(accepted)) == refused
        expected &= set(accepted)
    guarantee(name, kept, expected, accepted)


C_FORK = (
    REPORT
    + WAIT_FOR_REST
    + """
import ctypes, time
import ts_autotrack
from ts_autotrack import flush, track
track("first", {"n": 0}, user_id="u", group_id="g")
assert flush(10)
wait_for_rest()
child = ctypes.PyDLL(None).fork()
for n in range(1, 21): track("e", {"n": n + (0 if child else 20)}, user_id="u", group_id="g")
ended = ts_autotrack.shutdown(15)
report()
if child == 0: os._exit(0 if ended else 1)
assert os.waitpid(child, 0)[1] == 0
"""
)


def test_fork_past_the_hooks(inspector: Inspector, environment: dict[str, str], guarantee: Any, kept: str) -> None:
    """Parent and child of a fork in C, as uWSGI makes it, deliver their own events once."""
    done = run_python(C_FORK, THRIVESTACK_ENDPOINT=inspector.endpoint, **environment)
    assert done.returncode == 0, done.stderr
    guarantee("fork in C", kept, range(41), numbers(inspector), processes=2)
