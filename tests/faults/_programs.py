"""Programs under test: an application with an account at its end, and the numbers of its arrived events."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Inspector


REPORT = """
import atexit, os, signal
def report():
    import json, time, ts_autotrack
    new = f"{os.environ['ACCOUNTS']}.{os.getpid()}"
    for _ in range(100):  # a request that hangs past the end of the process may be answered right now
        account = ts_autotrack.stats()
        ends = account.delivered + account.pending + account.rejected + account.handed_over
        if account.accepted == ends + sum(account.dropped.values()): break
        time.sleep(0.01)
    with open(new, "w") as file: json.dump(account._asdict(), file)
    os.replace(new, f"{os.environ['ACCOUNTS']}/{os.getpid()}")  # the whole account, or none
atexit.register(report)  # registered first, runs last
def at(function, is_the_end):
    def reporting(*args):
        if is_the_end(*args): report()
        return function(*args)
    return reporting
def is_deadly(number): return number == signal.SIGTERM and signal.getsignal(number) == signal.SIG_DFL
os._exit = at(os._exit, lambda status: True)
os.kill = at(os.kill, lambda process, number: process == os.getpid() and is_deadly(number))
signal.raise_signal = at(signal.raise_signal, is_deadly)
"""
APP = (
    REPORT
    + """
import signal, sys, threading, time
import ts_autotrack
from ts_autotrack import track_feature, user_context
ts_autotrack.configure(flush_interval=30)  # only the first event leaves by itself

@track_feature("work", capture=["n"])
def work(n): return n

def ten(start=0):
    with user_context("u", group_id="g"):
        for n in range(start, start + 10): work(n)

def kept():  # with an outbox: wait until all tracked events are on disk
    worker = ts_autotrack._core.client.client.worker
    while worker.durable < ts_autotrack.stats().pending: time.sleep(0.001)

work(-1); ts_autotrack.flush(5)  # the thread runs, and sleeps
"""
)


def numbers(inspector: Inspector) -> list[int]:
    """Return the numbers of the arrived events, sorted."""
    return sorted(item["properties"]["n"] for item in inspector.items())
