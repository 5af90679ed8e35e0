"""The barrier: in a sandbox, on a full stack and under a broken logging set-up nothing of ours raises."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

import ts_autotrack as ts
from tests.conftest import run_python
from tests.core.conftest import account_closes
from ts_autotrack._core import diagnostics

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

PRELUDE = """
import asyncio, json, logging, os, sys, threading, time
forbidden = False
def forbid(module, name):
    real = getattr(module, name)
    def call(*args):
        if forbidden and threading.current_thread() is threading.main_thread():
            raise RuntimeError(f"{name} is forbidden")
        return real(*args)
    setattr(module, name, call)
for name in FORBIDDEN:
    forbid(os if name == "getpid" else time, name)
import ts_autotrack as ts

def function(x): ts.add_properties(y=x); return x
async def coroutine(x): return x
def rows(x): yield x
async def stream(x): yield x
def returns(x): return coroutine(x)
def fails(x): raise LookupError
def run(made):
    if hasattr(made, "send"):
        try: made.send(None); list(made)
        except StopIteration: pass
    elif hasattr(made, "asend"):
        for _ in range(2):
            try: made.__anext__().send(None)
            except (StopIteration, StopAsyncIteration): pass
forms = [dict(), dict(capture=["x"]), dict(on="always"), dict(properties=lambda call: {"r": 1})]
tracked = [ts.track_feature("f", **form)(f) for form in forms for f in (function, coroutine, rows, stream, returns)]
failing = ts.track_feature("f", on="always")(fails)
def use_everything():
    with ts.user_context("u", group_id="g", plan="pro"):
        for decorated in tracked: run(decorated(1))
        try: failing(1)
        except LookupError: pass
        with ts.track_feature("block") as use: use.set(a=1)
        ts.track("e", {"a": 1}); ts.identify({"a": 1}); ts.group("g", {"a": 1})
        ts.bind_user("v"); ts.clear_user()
        with ts.suppress(): ts.track("suppressed")
    ts.track("nobody")
    ts.user_context("u")(function)(1); ts.suppress()(function)(1)
    ts.stats(); ts.rejected()
"""
EVENTS = 4 * 5 + 1 + 1 + 3 + 1 + 1
"""Events of `use_everything`."""
FORBIDDEN = [["time_ns"], ["monotonic"], ["getpid"], ["time_ns", "time", "monotonic", "perf_counter", "getpid"]]


@pytest.mark.parametrize("names", FORBIDDEN, ids=lambda names: names[0] if len(names) == 1 else "all")
@pytest.mark.parametrize("begun", [True, False])
def test_sandbox_that_forbids_clocks(names: list[str], begun: bool, inspector: Inspector) -> None:  # noqa: FBT001
    """In a sandbox that forbids clocks and process ids no call raises, and each event is delivered or counted."""
    code = f"""
FORBIDDEN = {names!r}
{PRELUDE}
if {begun!r}: use_everything(); assert ts.flush(10)
before = ts.stats().accepted
forbidden = True
use_everything()
forbidden = False
assert ts.flush(10)
now = ts.stats()
print(json.dumps([now.accepted - before, now.accepted, now.delivered, now.pending, now.rejected, now.dropped]))
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint, THRIVESTACK_API_KEY="test")
    assert done.returncode == 0, done.stderr
    added, accepted, delivered, pending, rejected, dropped = json.loads(done.stdout)
    assert added == EVENTS
    assert accepted == delivered + pending + rejected + sum(dropped.values())
    assert set(dropped) <= {"fault", "suppressed", "unattributed"}


BROKEN = {
    "handler": "class Broken(logging.Handler):\n    def emit(self, _): raise RuntimeError\nlogger.addHandler(Broken())",
    "filter": "logger.addFilter(lambda record: 1 / 0)",
    "level": "class Broken(logging.Manager):\n    @property\n    def disable(self): raise RuntimeError\n    "
    "@disable.setter\n    def disable(self, value): pass\nlogger.manager = Broken(logging.root)",
    "isEnabledFor": "logger.isEnabledFor = lambda level: 1 / 0",
    "record factory": "logging.setLogRecordFactory(lambda *args, **kwargs: 1 / 0)",
    "root": "class Broken(logging.Handler):\n    def handle(self, _): 1 / 0\nlogging.root.addHandler(Broken())",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_logging(name: str, inspector: Inspector) -> None:
    """Handlers, filters and levels that raise harm neither the application nor the account."""
    code = f"""
FORBIDDEN = ["time_ns"]
{PRELUDE}
logger = logging.getLogger("ts_autotrack")
{BROKEN[name]}
ts.configure(debug=True)
use_everything()
forbidden = True
use_everything()
forbidden = False
assert ts.flush(10)
now = ts.stats()
assert now.accepted == {2 * EVENTS} == now.delivered + now.pending + now.rejected + sum(now.dropped.values()), now
assert now.delivered >= {EVENTS - 2}, now
assert ts.shutdown(5)
"""
    done = run_python(code, THRIVESTACK_ENDPOINT=inspector.endpoint, THRIVESTACK_API_KEY="test")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


async def coroutine(value: int) -> int:
    """Return the value."""
    return value


def step(made: Any) -> None:
    """Run a coroutine, or the first step of a generator."""
    with contextlib.suppress(StopIteration):
        made.send(None)


def rows(value: int) -> Any:
    """Yield the value."""
    yield value


def function(value: int) -> int:
    """Return the value."""
    return value


def returns(value: int) -> Any:
    """Return a coroutine."""
    return coroutine(value)


CALLS: dict[str, Callable[[], object]] = {
    "track": lambda: ts.track("e"),
    "track with properties": lambda: ts.track("e", {"a": [1, {"b": 2}]}, user_id="u", context={"k": 1}),
    "identify": lambda: ts.identify({"a": 1}),
    "group": lambda: ts.group("g", {"a": 1}),
    "add_properties": lambda: ts.add_properties(a=1),
}


def at_depth(call: Callable[[], object], depth: int) -> object:
    """Call at a depth of the stack."""
    return call() if depth == 0 else at_depth(call, depth - 1)


def overflows(call: Callable[[], object], depth: int) -> bool:
    """Return True if a call at this depth raises RecursionError."""
    try:
        at_depth(call, depth)
    except RecursionError:
        return True
    return False


def plain(*_: object, **__: object) -> None:
    """Do nothing, as the least that a call of Python costs."""


def deepest(call: Callable[[], object]) -> int:
    """Return the deepest stack on which a call succeeds."""
    found = next(depth for depth in range(sys.getrecursionlimit(), 0, -1) if not overflows(call, depth))
    return found - (sys.gettrace() is not None)  # a tracer needs a frame, too


@pytest.mark.usefixtures("acting")
@pytest.mark.parametrize("name", CALLS)
def test_entry_points_on_a_full_stack(name: str, inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a plain function can be called, an entry point can be called, and its event is sent or counted."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    bottom = deepest(lambda: plain("e", {"a": 1}, user_id="u"))
    assert [depth for depth in range(bottom, bottom - 60, -1) if overflows(CALLS[name], depth)] == []
    assert ts.flush(10)
    stats = account_closes()
    assert stats.accepted == (0 if name == "add_properties" else 60)
    assert stats.delivered == len(inspector.items())
    assert set(stats.dropped) <= {"fault"}


@pytest.mark.usefixtures("acting")
def test_use_set_on_a_full_stack(inspector: Inspector, monkeypatch: pytest.MonkeyPatch) -> None:
    """`use.set` on a full stack loses its properties at worst."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    bottom = deepest(lambda: plain(a=1))
    with ts.track_feature("block") as use:
        assert [depth for depth in range(bottom, bottom - 60, -1) if overflows(lambda: use.set(a=1), depth)] == []
    assert ts.flush(10)
    assert inspector.items()[0]["properties"]["a"] == 1


FORMS: list[dict[str, Any]] = [{}, {"capture": ["value"]}, {"on": "always"}, {"properties": lambda _: {"a": 1}}]


@pytest.mark.usefixtures("acting")
@pytest.mark.parametrize("form", FORMS, ids=["plain", "capture", "always", "properties"])
@pytest.mark.parametrize("target", [function, coroutine, rows, returns])
def test_decorated_calls_on_a_full_stack(
    form: dict[str, Any], target: Any, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a call succeeds inside a plain wrapper of the same kind, the tracked call succeeds, and is accounted."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    tracked = ts.track_feature("f", **form)(target)

    def call(decorated: Any) -> None:
        made = decorated(1)
        if hasattr(made, "send"):
            try:
                step(made)
            finally:
                made.close()

    call(tracked)
    assert ts.flush(10)
    arrived = ts.stats().accepted
    bottom = deepest(lambda: call(wrapped(target))) - 2
    assert [depth for depth in range(bottom, bottom - 60, -1) if overflows(lambda: call(tracked), depth)] == []
    assert ts.flush(10)
    stats = account_closes()
    assert stats.accepted - arrived == 60
    assert stats.delivered == len(inspector.items())


def wrapped(target: Any) -> Any:
    """Return a plain wrapper that costs a frame."""
    return lambda value: target(value)  # noqa: PLW0108


@pytest.mark.parametrize("make", [lambda: ts.user_context("u", plan="pro"), ts.suppress])
def test_blocks_on_a_full_stack(make: Callable[[], Any]) -> None:
    """A block that cannot be entered for want of stack raises before it; one that was entered can be left."""
    block = make()
    failed: list[str] = []

    def enter() -> None:
        block.__enter__()
        try:
            block.__exit__(None, None, None)
        except RecursionError:
            failed.append("left")

    bottom = deepest(plain)
    for depth in range(bottom, bottom - 60, -1):
        overflows(enter, depth)
        ts.track("after")
        assert ts.stats().dropped.get("suppressed", 0) == 0
    assert failed == []
    assert block._entered == []
