"""Tracked calls in unexpected places, such as finalizers and signal handlers, and forks at any moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import run_python
from tests.faults._programs import REPORT

if TYPE_CHECKING:
    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

BEGIN = (
    REPORT
    + """
import gc, os, signal, sys, threading, time
import ts_autotrack
from ts_autotrack import configure, flush, stats, track, track_feature, user_context
numbers = iter(range(10**9))
@track_feature("work", capture=["n"])
def work(n): return n
def once():
    with user_context("u", group_id="g"): work(next(numbers))
"""
)

END = """
dropped = dict(stats().dropped)
# A finalizer run by the collector on the library's own thread counts as suppressed.
print(next(numbers), dropped.pop("suppressed", 0))
assert not dropped, dropped
"""

FINALIZERS = """
@track_feature("work", capture=["n"], user_id="u", group_id="g")
def finalized(n): pass
class Tracked:
    def __init__(self): self.itself = self  # a cycle: the collector ends the object at any moment
    def __del__(self): finalized(next(numbers))
gc.set_threshold(20)
for _ in range(3000):
    Tracked()
    once()
gc.collect()
"""
SIGNALS = """
handled = 0
def handler(*_):
    global handled
    handled += 1
    once()
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
while handled < 500: once(); time.sleep(0.0002)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
TRACE = """
def trace(frame, event, arg):
    if "ts_autotrack" in frame.f_code.co_filename and event == "call" and not trace.inside:
        trace.inside = True
        once()
        trace.inside = False
    return trace
trace.inside = False
sys.settrace(trace)
for _ in range(30): once()
sys.settrace(None)
"""
HOOKS = """
def hook(call):
    once()
    return {"result": call.result}
@track_feature("hooked", capture=["n"], properties=hook)
def hooked(n): return n
for _ in range(300):
    with user_context("u", group_id="g"): hooked(next(numbers))
"""
FORKS = """
def busy():
    while not done.is_set(): once(); time.sleep(0.001)
done = threading.Event()
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
statuses = []
for _ in range(40):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a hanging child fails the test instead of hanging the test
        track("child", user_id="u", group_id="g")
        os._exit(0 if flush(10) else 1)
    statuses.append(os.waitpid(child, 0)[1])
done.set()
for thread in threads: thread.join()
assert not any(statuses), statuses
"""
THREADS = """
def many():
    for _ in range(2000): once()
threads = [threading.Thread(target=many) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
SETTINGS: dict[str, dict[str, str]] = {
    "memory": {},
    "outbox": {"TS_AUTOTRACK_DURABILITY": "batch"},
    "outbox, each event": {"TS_AUTOTRACK_DURABILITY": "event"},
}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("tracking from `__del__` during collection", FINALIZERS),
        ("tracking from signal handlers", SIGNALS),
        ("tracking under `sys.settrace`", TRACE),
        ("tracking from a `properties` callable", HOOKS),
        ("forks while threads track", FORKS),
        ("8 threads", THREADS),
    ],
)
@pytest.mark.parametrize("where", SETTINGS)
def test_no_deadlock_and_nothing_lost(
    inspector: Inspector, environment: dict[str, str], guarantee: Any, tmp_path: Any, name: str, code: str, where: str
) -> None:
    """No interruption causes a hang; every tracked event arrives once."""
    target = {**environment, "THRIVESTACK_ENDPOINT": inspector.endpoint, "TS_AUTOTRACK_EXIT_TIMEOUT": "20"}
    if where != "memory":
        target |= {"TS_AUTOTRACK_OUTBOX": str(tmp_path / "outbox"), **SETTINGS[where]}
    done = run_python(f"{BEGIN}{code}\n{END}", **target)
    assert done.returncode == 0, done.stderr
    assert "failed" not in done.stderr
    tracked, own = map(int, done.stdout.split())
    seen = [item["properties"]["n"] for item in inspector.items(event_name="feature_used")]
    assert len(seen) == tracked - own
    guarantee(name, "memory" if where == "memory" else "outbox", set(seen), seen, counted=False)
