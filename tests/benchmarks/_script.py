"""Track ten events, flush and end: `python -m tests.benchmarks._script NAME URL`.

The script prints the moment before the contender's import, on the clock shared by all processes.
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks._contenders import ALL, late_floor


def main(name: str, url: str) -> None:
    """Track ten events with a contender or with the floor, or do nothing."""
    sys.stdout.write(f"{time.monotonic()}\n")
    sys.stdout.flush()
    started = late_floor(url) if name == "floor" else ALL[name].start(url) if name in ALL else None
    if started is not None:
        for _ in range(10):
            started.call()
        started.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
