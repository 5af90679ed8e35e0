"""Forks of a real process with events pending."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.conftest import WAIT_FOR_REST, run_python

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector


def test_forked_child_sends_its_own_events_and_not_its_parents(inspector: Inspector) -> None:
    """The parent sends events pending at a fork, once; parent and child go on with ids of their own."""
    code = """
import os, sys
from ts_autotrack import track, flush, stats, configure
configure(flush_interval=30)
track("first", user_id="u"); flush(5)
for n in range(5): track("before", user_id="u")
child = os.fork()
for n in range(3): track("child" if child == 0 else "parent", user_id="u")
if child == 0:
    assert flush(5)
    account = stats()
    os._exit(0 if (account.accepted, account.delivered) == (3, 3) else 1)
_, status = os.waitpid(child, 0)
assert flush(5)
print(status, *stats()[:3], stats().dropped)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert done.stdout == "0 9 9 0 {}\n", done.stderr
    items = inspector.items()
    assert sorted(item["event_name"] for item in items) == ["before"] * 5 + ["child"] * 3 + ["first"] + ["parent"] * 3
    assert len({item["context"]["event_id"] for item in items}) == 12


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("call", ["track('child', user_id='u')", "configure()"])
def test_fork_while_a_thread_configures(dead_endpoint: str, delay: float, call: str) -> None:
    """A child forked while a thread imports the delivery stack tracks and configures without a hang."""
    code = f"""
import os, signal, threading, time
import ts_autotrack
from ts_autotrack import configure, track
os.environ["THRIVESTACK_ENDPOINT"] = {dead_endpoint!r}  # after the import, as a loader of .env files does
thread = threading.Thread(target=configure)
thread.start()
time.sleep({delay})
child = os.fork()
if child == 0:
    signal.alarm(15)  # a hanging child fails the test
    {call}
    os._exit(0)
print(os.waitpid(child, 0)[1])
thread.join()
os._exit(0)
"""
    done = run_python(code)
    assert done.stdout == "0\n", done.stderr


C_FORK = (
    WAIT_FOR_REST
    + """
import ctypes, os, time
import ts_autotrack
from ts_autotrack import bind_user, flush, track, track_feature, user_context
@track_feature("work")
def work(): pass
with user_context("parent", group_id="g"):
    work()
    flush(5)
    wait_for_rest()
    child = ctypes.PyDLL(None).fork()  # past Python's fork hooks
with user_context("parent" if child else "child", group_id="g"):
    for _ in range(20): work()
ended = ts_autotrack.shutdown(10)
if child == 0: os._exit(0 if ended else 1)
print(os.waitpid(child, 0)[1], ended, flush=True)
"""
)


@pytest.mark.parametrize("durability", ["", "batch", "event"])
def test_fork_in_c(inspector: Inspector, tmp_path: Path, durability: str) -> None:
    """A fork that Python's hooks do not see, as uWSGI makes it, loses and duplicates no event of parent or child."""
    outbox = {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), "TS_AUTOTRACK_DURABILITY": durability}
    done = run_python(C_FORK, THRIVESTACK_ENDPOINT=inspector.endpoint, **(outbox if durability else {}))
    assert done.stdout == "0 True\n", done.stderr
    assert Counter(item["user_id"] for item in inspector.items()) == {"parent": 21, "child": 20}
