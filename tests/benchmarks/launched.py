"""Costs of a program whose code is left alone: `python -m tests.benchmarks.launched` on CPython 3.12 or newer.

Prints nanoseconds of a call (the best of many rounds): of a decorated function, of a function named in the settings, of
another function of the same program, and of a function in a program without the library. And the milliseconds by which
the activation delays the start, beside the import of the library.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

CALLS, ROUNDS = 800, 300  # fewer calls than wake the background thread
_MODULE = "def named(x): return x\ndef other(x): return x\n"
_MEASURE = f"""
import sys, time, gc
sys.path.insert(0, sys.argv[1])
mode = sys.argv[2]
if mode != "bare":
    import ts_autotrack
    ts_autotrack.configure(max_queue=10_000_000, max_queue_bytes=10_000_000_000, flush_interval=60)
if mode == "launched":
    import ts_autotrack.auto
import shop
if mode == "decorated":
    @ts_autotrack.track_feature
    def decorated(x): return x
def best(function):
    gc.disable()
    found = []
    for _ in range({ROUNDS}):
        begin = time.perf_counter()
        for _ in range({CALLS}): function(1)
        found.append(time.perf_counter() - begin)
        if mode != "bare": ts_autotrack.flush(10)
    return round(min(found) / {CALLS} * 1e9, 1)
if mode == "bare": print(best(shop.other))
else:
    with ts_autotrack.user_context("user_1", group_id="account_1"):
        print(best(decorated) if mode == "decorated" else (best(shop.named), best(shop.other)))
"""
_START = """
import time
begin = time.perf_counter()
import ts_autotrack
imported = time.perf_counter()
import ts_autotrack.auto
print((time.perf_counter() - imported) * 1e3, (imported - begin) * 1e3)
"""


def run(*arguments: str, **settings: str) -> str:
    """Run Python with the events of the program going nowhere, and return its output."""
    environment = {**os.environ, "TS_AUTOTRACK_EXPORTER": "jsonl", "TS_AUTOTRACK_JSONL_PATH": os.devnull, **settings}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "shop.py").write_text(_MODULE)
        features = {"TS_AUTOTRACK_FEATURES": "shop:named=named", "TS_AUTOTRACK_INTEGRATIONS": "off"}
        print("bare program, ns a call:", run("-c", _MEASURE, folder, "bare"))
        print("decorated function:", run("-c", _MEASURE, folder, "decorated"))
        print("launched program, (named, other):", run("-c", _MEASURE, folder, "launched", **features))
        every = {"TS_AUTOTRACK_FEATURES": "shop:named=named;GET /a=a"}
        for name, settings in (("functions only", features), ("functions and frameworks", every)):
            starts = [[float(part) for part in run("-c", _START, **settings).split()] for _ in range(9)]
            least = [round(min(figures), 1) for figures in zip(*starts, strict=True)]
            print(f"start, ms of the activation ({name}), and of the import:", *least)


if __name__ == "__main__":
    main()
