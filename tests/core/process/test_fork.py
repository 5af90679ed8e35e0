"""Forks of a real process with events pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conftest import run_python

if TYPE_CHECKING:
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
