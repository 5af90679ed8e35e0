"""The memory taken by an outage, and its return."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import Answer, ScriptedServer, run_python
from tests.faults._programs import REPORT

if TYPE_CHECKING:
    from tests.conftest import Inspector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.skipif(sys.gettrace() is not None, reason="measuring coverage takes memory, too"),
]

OUTAGE = (
    REPORT
    + """
import sys, time
import ts_autotrack
from ts_autotrack import flush, stats, track_feature, user_context
def rss(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
@track_feature("work")
def work(): pass
def many(count):
    with user_context("u", group_id="g"):
        for n in range(count): work()
many(1000)
worker = ts_autotrack._core.client.client.worker
while not worker.in_backoff: time.sleep(0.01)
before, blocks_before = rss(), sys.getallocatedblocks()  # after a failed attempt, all modules are loaded
many(99_000)
blocks = sys.getallocatedblocks() - blocks_before
while os.environ.get("TS_AUTOTRACK_OUTBOX") and worker.durable < 100_000: time.sleep(0.01)
during = rss()
assert stats().pending == 100_000, stats()
ts_autotrack.configure(endpoint=sys.argv[1])
assert flush(60)
many(1000)
assert flush(10)
print(during - before, rss() - before, blocks, sys.getallocatedblocks() - blocks_before, stats().delivered)
"""
)


@pytest.mark.parametrize(("kept", "most", "rest"), [("memory", 40, 0.7), ("outbox", 20, 0.95)])
def test_100_000_events_during_an_outage(
    inspector: Inspector,
    dead_endpoint: str,
    environment: dict[str, str],
    guarantee: Any,
    kept: str,
    most: int,
    rest: float,
) -> None:
    """An outage of 100,000 events takes less than 40 MB in memory mode and 20 MB with an outbox, and loses no event.

    All objects are freed after the outage. Memory returns, except for the modules loaded by delivery and for areas of
    the allocator in which an object still lives: their number depends on chance, so one of three processes counts.
    """
    code = f"import sys; sys.argv = ['', {inspector.endpoint!r}]\n{OUTAGE}"
    for _ in range(3):
        inspector.forget()
        done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint, **environment)
        assert done.returncode == 0, done.stderr
        during, after, blocks, blocks_after, delivered = map(float, done.stdout.split())
        print(
            f"{kept}: {during:.1f} MB, {blocks:.0f} blocks during the outage; {after:.1f}, {blocks_after:.0f} after it"
        )
        assert during < most
        assert delivered == 101_000
        assert blocks_after < 0.1 * blocks
        if after < rest * during:
            break
    else:
        pytest.fail(f"{after:.1f} MB of {during:.1f} MB stay after the outage")
    numbers: dict[str, int] = {}
    arrived = [numbers.setdefault(item["context"]["event_id"], len(numbers)) for item in inspector.items()]
    guarantee("outage of 100,000 events", kept, range(101_000), arrived)


class Receiver(ScriptedServer):
    """A Collector that accepts everything, without reading it."""

    def decode(self, headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
        """Return no items: reading 100,000 log records takes ten seconds."""
        del headers, body
        return []


def test_memory_of_an_outage_of_a_collector_returns(environment: dict[str, str]) -> None:
    """The exporter otlp gives the memory of 100,000 events back, as the exporter thrivestack does."""
    receiver = Receiver()
    mend = "os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = sys.argv[1]; ts_autotrack.configure(exporter='otlp')"
    code = OUTAGE.replace("ts_autotrack.configure(endpoint=sys.argv[1])", mend)
    code = f"import os, sys; sys.argv = ['', {receiver.endpoint!r}]\n{code}"
    try:
        for _ in range(3):  # as above: one of three processes counts
            variables = {"TS_AUTOTRACK_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
            done = run_python(code, **variables, **environment)
            assert done.returncode == 0, done.stderr
            during, after, *_ = map(float, done.stdout.split())
            if after < 0.7 * during:
                break
        else:
            pytest.fail(f"{after:.1f} MB of {during:.1f} MB stay after the outage")
    finally:
        receiver.close()


# The most memory taken by Python objects from `start` on, in MB. The figure is exact. Resident memory depends on
# chance: the C library keeps freed memory for each thread.
TAKEN = """
import tracemalloc
def start():
    tracemalloc.start()
def taken():
    return tracemalloc.get_traced_memory()[1] / 1e6
"""

ALLOCATIONS = (
    REPORT
    + """
import gc, tracemalloc
from ts_autotrack import flush, track_feature, user_context
@track_feature("work", capture=["n"])
def work(n): pass
def many():
    with user_context("u", group_id="g"):
        for n in range(3000): work(n)
    assert flush(20)
    gc.collect()
many()
tracemalloc.start()
many()
before, _ = tracemalloc.get_traced_memory()
many()
print(tracemalloc.get_traced_memory()[0] - before)
"""
)


@pytest.mark.usefixtures("kept")
def test_nothing_survives_an_event(inspector: Inspector, environment: dict[str, str]) -> None:
    """Nothing allocated by a call or its delivery is left once the event is delivered."""
    done = run_python(ALLOCATIONS, THRIVESTACK_ENDPOINT=inspector.endpoint, **environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 10_000, "bytes for 3,000 events"


FEATURES = (
    REPORT
    + TAKEN
    + """
from ts_autotrack import flush, track_feature, user_context
def features(count):
    return [track_feature(f"f{n}", properties={"text": "x" * 200})(lambda: None) for n in range(count)]
kept = features(1000)
flush(5)
start()
with user_context("u"):
    for feature in kept: feature()
assert flush(20)
import gc; gc.collect()
print(tracemalloc.get_traced_memory()[0])
"""
)


def test_what_a_feature_keeps_is_small(inspector: Inspector, environment: dict[str, str]) -> None:
    """JSON kept for a feature takes its own length: bytes that orjson 3.13 returns hold 4 kB and more besides."""
    done = run_python(FEATURES, THRIVESTACK_ENDPOINT=inspector.endpoint, **environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2_000_000, "bytes for 1,000 features with 200 bytes of properties"


def test_long_properties_are_bounded_in_bytes(dead_endpoint: str, environment: dict[str, str]) -> None:
    """Waiting events with properties of any length stay within the limit; the newest events are refused and counted."""
    code = (
        REPORT
        + TAKEN
        + """
from ts_autotrack import flush, stats, track, add_properties, track_feature, group
@track_feature("work", capture=["text"], user_id="u")
def work(text): add_properties(more=["y" * 10_000 + text[-5:]])
track("e", user_id="u"); flush(0.3)
start()
for n in range(2000):
    track("e", {"text": str(n).zfill(50_000)}, user_id="u")
    work(str(n).zfill(50_000))
    group(f"g{n}", {"text": str(n).zfill(50_000)})
print(taken(), stats().pending, stats().dropped["queue_full"])
"""
    )
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint, TS_AUTOTRACK_MAX_QUEUE_BYTES="20000000", **environment)
    assert done.returncode == 0, done.stderr
    added, pending, refused = map(float, done.stdout.split())
    print(f"{added} MB")
    assert added < 60
    assert 300 < pending < 1000
    assert pending + refused > 5000
    assert "TS_AUTOTRACK_MAX_QUEUE_BYTES=20000000" in done.stderr


LARGE = {
    "many properties": ('track("e", {f"p{k}": k for k in range(3000)}, user_id="u")', 600),
    "long keys": ('track("e", {str(n) + "k" * 50_000: 1}, user_id="u")', 1_500),
    "wide characters": ('track("e", {"text": "\\U0001f600" * 500}, user_id="u")', 15_000),
    "a long property of each scope": ('with user_context("u", bio=str(n) + "y" * 50_000): track("e")', 1_500),
    "a long property of each binding": ('bind_user("u", bio=str(n) + "y" * 50_000); track("e")', 1_500),
    "long user ids": ('track("e", user_id=f"{n}:" + "x" * 20_000)', 3_000),
    "long account ids": ('bind_user("u"); group(f"{n}:" + "x" * 20_000)', 3_000),
    "long names": ('track(f"{n}:" + "x" * 20_000, user_id="u")', 3_000),
    "long names of properties": ('track("e", {f"{n}:" + "x" * 20_000: 1}, user_id="u")', 3_000),
    "properties of blocks": (
        'bind_user("u")\n    with track_feature("f", properties={"a": str(n) + "x" * 20_000}): pass',
        3_000,
    ),
    "names of blocks": ('bind_user("u")\n    with track_feature(str(n) + "x" * 20_000): pass', 3_000),
    "decimals": ('track("e", {"rows": [Decimal(f"{n}.{k}" + "1" * 500) for k in range(100)]}, user_id="u")', 1_500),
    "many short values": ('with user_context("u", **{f"p{k}": f"{n}" for k in range(300)}): track("e")', 4_000),
    "nested values": ('track("e", {"rows": [[n, "z" * 100] for _ in range(300)]}, user_id="u")', 1_500),
}


@pytest.mark.parametrize("kind", LARGE)
def test_whatever_is_large_counts(dead_endpoint: str, environment: dict[str, str], kind: str) -> None:
    """MAX_QUEUE_BYTES bounds the waiting events for every cause of their size, identity included."""
    event, times = LARGE[kind]
    code = (
        REPORT
        + TAKEN
        + f"""
from decimal import Decimal
from ts_autotrack import bind_user, flush, group, stats, track, track_feature, user_context
track("e", user_id="u"); flush(0.3)
start()
for n in range({times}):
    {event}
print(taken(), stats().dropped.get("queue_full", 0))
"""
    )
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint, TS_AUTOTRACK_MAX_QUEUE_BYTES="10000000", **environment)
    assert done.returncode == 0, done.stderr
    added, refused = done.stdout.split()
    print(f"{kind}: {added} MB")
    assert float(added) < 50
    print(f"{refused} refused")
    assert int(refused) > 0


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("durability", ["batch", "event"])
def test_items_are_encoded_a_few_megabytes_at_a_time(
    inspector: Inspector, dead_endpoint: str, environment: dict[str, str], durability: str
) -> None:
    """A value shared by many events is written out in each item; not all of these copies are in memory at once."""
    code = (
        REPORT
        + TAKEN
        + f"""
import ts_autotrack
from ts_autotrack import flush, stats, track, user_context
track("e", user_id="u"); flush(0.3)
start()
for text in "xyz": # 80 MB of items
    with user_context("u", group_id="g", bio=text * 40_000):
        for n in range(666): track("e")
flush(2)
print(taken(), stats().pending)
ts_autotrack.configure(endpoint={inspector.endpoint!r})
print(flush(60), stats().delivered)
"""
    )
    environment |= {"TS_AUTOTRACK_DURABILITY": durability}
    done = run_python(code, THRIVESTACK_ENDPOINT=dead_endpoint, **environment)
    assert done.returncode == 0, done.stderr
    added, pending, flushed, delivered = done.stdout.split()
    print(f"{durability}: {added} MB")
    assert float(added) < 35, done.stderr
    assert (pending, flushed, delivered) == ("1999", "True", "1999")


def test_what_is_encoded_counts_towards_the_limit(server: ScriptedServer, environment: dict[str, str]) -> None:
    """MAX_QUEUE bounds the number of waiting events, including events being sent."""
    gate = threading.Event()
    server.always = lambda _: Answer(wait=gate)
    code = (
        REPORT
        + """
import time
from ts_autotrack import stats, track
for n in range(400):
    track("e", user_id="u")
    time.sleep(0.001)
print(stats().pending, stats().dropped)
"""
    )
    target = {"TS_AUTOTRACK_MAX_QUEUE": "10", "TS_AUTOTRACK_EXIT_TIMEOUT": "0.1"}
    done = run_python(code, THRIVESTACK_ENDPOINT=server.endpoint, **target, **environment)
    gate.set()
    assert done.stdout == "10 {'queue_full': 390}\n", done.stderr
