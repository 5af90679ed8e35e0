"""Mix faults at random and end with the sums.

    python -m tests.faults.soak --minutes N [--seed S]

Processes track numbered events with an outbox in front of an inspector whose faults change all the time; they are
killed, terminated or left to end, and fork. At the end one more process delivers what is left, refused items included:
every event that a process had said to be on disk must have arrived, no file be left, and the last account close.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

FAULTS: tuple[list[str], ...] = (
    [],
    [],
    ["500:0.5"],
    ["reset:0.3"],
    ["lost:0.2"],
    ["429:0.5"],
    ["413:0.3"],
    ["503"],
    ["slow:0.3"],
    ["html"],
)
PROCESSES = 3

APP = """
import os, sys, time
import ts_autotrack
from ts_autotrack import track_feature, user_context
name, rounds, fork, durability = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fork", sys.argv[4]
ts_autotrack.configure(durability=durability)
@track_feature("soak", capture=["name", "n"])
def work(name, n): pass
def on_disk():
    if durability == "event": return True
    return ts_autotrack._core.client.client.worker.durable >= ts_autotrack.stats().pending
def many(name):
    said = 0
    for n in range(rounds):
        with user_context("u", group_id="g"): work(name, n)
        if durability == "event" or n % 50 == 49 or n == rounds - 1:
            while not on_disk(): time.sleep(0.001)
            os.write(1, "".join(f"{name} {m}\\n" for m in range(said, n + 1)).encode())
            said = n + 1
        if n % 50 == 0: time.sleep(0.01)
if fork and os.fork() == 0:
    many(name + "-child")
    ts_autotrack.shutdown(2)
    os._exit(0)
many(name)
"""
LAST = """
import json, time, ts_autotrack
ts_autotrack.track("last", user_id="u", group_id="g")
deadline = time.monotonic() + 60
while not ts_autotrack.flush(1) or ts_autotrack.stats().pending:
    if time.monotonic() > deadline: break
print(json.dumps(ts_autotrack.stats()._asdict()))
"""


class Soak:
    """One run."""

    def __init__(self, seed: int, scratch: Path) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.scratch = scratch
        self.said: set[tuple[str, int]] = set()
        self.started = 0
        self.ends: dict[str, int] = {}
        command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--quiet"]
        self.inspector = subprocess.Popen(
            [*command, "--db", str(scratch / "events.db")], stdout=subprocess.PIPE, text=True
        )
        assert self.inspector.stdout is not None
        self.url = self.inspector.stdout.readline().split()[3]
        outbox = {"TS_AUTOTRACK_OUTBOX": str(scratch / "outbox")}
        self.environment = {**os.environ, "THRIVESTACK_ENDPOINT": f"{self.url}/api", **outbox}

    def one_process(self) -> tuple[subprocess.Popen[bytes], Path, str]:
        """Start a process that tracks; return it, where it says what it has tracked, and how it is to end."""
        self.started += 1
        end = self.random.choice(["end", "end", "SIGTERM", "SIGKILL", "SIGKILL"])
        self.ends[end] = self.ends.get(end, 0) + 1
        output = self.scratch / f"{self.started}.out"
        words = [
            f"p{self.started}",
            str(self.random.randint(50, 2_000)),
            self.random.choice(["fork", "alone"]),
            self.random.choice(["event", "batch"]),
        ]
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", APP, *words],
                env=self.environment,
                stdout=file,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return process, output, end

    def round(self) -> None:
        """Run some processes under some faults to their ends."""
        httpx.put(f"{self.url}/faults", params={"fault": self.random.choice(FAULTS)})
        running = [self.one_process() for _ in range(PROCESSES)]
        for process, _, end in running:
            if end != "end":
                try:
                    process.wait(self.random.uniform(0.2, 2.0))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGTERM if end == "SIGTERM" else signal.SIGKILL)
        for process, output, _ in running:
            process.wait(60)
            lines = output.read_bytes().split(b"\n")[:-1]
            self.said |= {(name.decode(), int(n)) for name, n in (line.split() for line in lines)}

    def finish(self) -> bool:
        """Deliver what is left, print the sums, and return whether they are right."""
        httpx.put(f"{self.url}/faults")
        retry = [sys.executable, "-m", "ts_autotrack.cli", "outbox", "retry"]  # a 413 may have hit one that was alone
        subprocess.run(retry, env=self.environment, check=True)
        last = subprocess.run(
            [sys.executable, "-c", LAST], env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        account = json.loads(last.stdout)
        open_ = account["accepted"] - account["delivered"]
        arrived: list[tuple[str, int]] = []
        ids: dict[str, tuple[str, int]] = {}
        changed, after = 0, 0
        while page := self._page(after):
            for event in page:
                properties = event["item"]["properties"]
                key = (properties["name"], properties["n"])
                changed += ids.setdefault(event["item"]["context"]["event_id"], key) != key
                arrived.append(key)
                after = event["id"]
        left = sorted(path.name for path in (self.scratch / "outbox").glob("*.events"))
        lost = self.said - set(arrived)
        print(f"processes: {self.started} {self.ends}")
        print(f"events said to be tracked: {len(self.said)}, arrived: {len(set(arrived))}, lost: {len(lost)}")
        print(
            f"arrived twice: {len(arrived) - len(set(arrived))}, "
            f"of these with another id: {len(ids) - len(set(arrived))}"
        )
        print(f"files left: {left}; last process: {account}")
        return not (lost or changed or left or open_) and len(ids) == len(set(arrived))

    def _page(self, after: int) -> list[dict[str, Any]]:
        query: dict[str, str | int] = {"after": after, "event_name": "feature_used"}
        return list(httpx.get(f"{self.url}/events", params=query, timeout=60).json()["events"])

    def close(self) -> None:
        """End the inspector."""
        self.inspector.terminate()
        self.inspector.wait(10)


def main() -> int:
    """Run for so many minutes; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed: {options.seed}")
    with tempfile.TemporaryDirectory() as scratch:
        soak = Soak(options.seed, Path(scratch))
        try:
            end = time.monotonic() + options.minutes * 60
            while time.monotonic() < end:
                soak.round()
            return 0 if soak.finish() else 1
        finally:
            soak.close()


if __name__ == "__main__":
    sys.exit(main())
