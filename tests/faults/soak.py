"""Mix faults at random and end with the sums.

    python -m tests.faults.soak --minutes N [--seed S] [--c-forks]

Processes with an outbox track numbered events, and the inspector's faults change all the time: outages, slow and
hanging answers, refusals of single events. The processes fork, shut the library down and configure it again, and are
killed, terminated or left to end. With `--c-forks` some of them fork in C, past Python's hooks. At the end another
process delivers the remaining events, refused items included: every event reported as on disk must have arrived, no
file may be left, and the account of every process that could write one must close.
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

from tests.faults._programs import REPORT

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
    ["hang:0.2"],
    ["422=poison"],
    ["500=poison"],
    ["html"],
)
PROCESSES = 3

APP = (
    REPORT
    + """
import ctypes, sys, time
import ts_autotrack
from ts_autotrack import track_feature, user_context
name, rounds, fork, durability, restarts = sys.argv[1], int(sys.argv[2]), sys.argv[3], *sys.argv[4:]
ts_autotrack.configure(durability=durability)
@track_feature("soak", capture=["name", "n", "text"])
def work(name, n, text): pass
def on_disk():
    if durability == "event": return True
    worker = ts_autotrack._core.client.client.worker
    return worker is not None and worker.durable >= ts_autotrack.stats().pending
def many(name):
    said = 0
    for n in range(rounds):
        with user_context("u", group_id="g"): work(name, n, "poison" if n % 97 == 13 else "")
        if durability == "event" or n % 50 == 49 or n == rounds - 1:
            while not on_disk(): time.sleep(0.001)
            os.write(1, "".join(f"{name} {m}\\n" for m in range(said, n + 1)).encode())
            said = n + 1
        if n % 50 == 0: time.sleep(0.01)
        if restarts == "restarts" and n % 200 == 199:
            ts_autotrack.shutdown(0.05)
            ts_autotrack.configure()
forks = {"fork": os.fork, "c-fork": ctypes.PyDLL(None).fork, "alone": os.getpid}
if forks[fork]() == 0:
    many(name + "-child")
    ts_autotrack.shutdown(2)
    os._exit(0)
many(name)
"""
)
LAST = """
import glob, json, os, time, ts_autotrack
ts_autotrack.track("last", user_id="u", group_id="g")
deadline = time.monotonic() + 60
def others(): return len(glob.glob(os.path.join(os.environ["TS_AUTOTRACK_OUTBOX"], "*.events"))) > 1
while not ts_autotrack.flush(1) or ts_autotrack.stats().pending or others():
    if time.monotonic() > deadline: break
print(json.dumps(ts_autotrack.stats()._asdict()))
"""


class Soak:
    """A run."""

    def __init__(self, seed: int, scratch: Path, forks: list[str]) -> None:
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.scratch = scratch
        self.forks = forks
        self.accounts = scratch / "accounts"
        self.accounts.mkdir()
        self.said: set[tuple[str, int]] = set()
        self.started = 0
        self.ends: dict[str, int] = {}
        command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--quiet"]
        self.inspector = subprocess.Popen(
            [*command, "--db", str(scratch / "events.db")], stdout=subprocess.PIPE, text=True
        )
        assert self.inspector.stdout is not None
        self.url = self.inspector.stdout.readline().split()[3]
        outbox = {"TS_AUTOTRACK_OUTBOX": str(scratch / "outbox"), "ACCOUNTS": str(self.accounts)}
        outbox["TS_AUTOTRACK_REQUEST_TIMEOUT"] = "2"
        self.environment = {**os.environ, "THRIVESTACK_ENDPOINT": f"{self.url}/api", **outbox}

    def one_process(self) -> tuple[subprocess.Popen[bytes], Path, str]:
        """Start a tracking process; return the process, the file of its reported events, and its kind of end."""
        self.started += 1
        end = self.random.choice(["end", "end", "SIGTERM", "SIGKILL", "SIGKILL"])
        self.ends[end] = self.ends.get(end, 0) + 1
        output = self.scratch / f"{self.started}.out"
        words = [
            f"p{self.started}",
            str(self.random.randint(50, 2_000)),
            self.random.choice(self.forks),
            self.random.choice(["event", "batch"]),
            self.random.choice(["restarts", "no restart"]),
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
        """Run some processes to their ends, under faults chosen at random."""
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
        """Deliver the remaining events, print the sums, and return whether the sums are right."""
        httpx.put(f"{self.url}/faults")
        # A 413 may have hit an item alone in its request.
        retry = [sys.executable, "-m", "ts_autotrack.cli", "outbox", "retry"]
        subprocess.run(retry, env=self.environment, check=True)
        last = subprocess.run(
            [sys.executable, "-c", LAST], env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        account = json.loads(last.stdout)
        open_ = account["accepted"] - account["delivered"]
        accounts = [json.loads(path.read_text()) for path in self.accounts.iterdir() if path.suffix != ".new"]
        unequal = [account for account in accounts if not _closes(account)]
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
        print(f"accounts: {len(accounts)}, of these not closed: {unequal}")
        return not (lost or changed or left or open_ or unequal) and len(ids) == len(set(arrived))

    def _page(self, after: int) -> list[dict[str, Any]]:
        query: dict[str, str | int] = {"after": after, "event_name": "feature_used"}
        return list(httpx.get(f"{self.url}/events", params=query, timeout=60).json()["events"])

    def close(self) -> None:
        """End the inspector."""
        self.inspector.terminate()
        self.inspector.wait(10)


def _closes(account: dict[str, Any]) -> bool:
    left = account["pending"] + account["rejected"] + account["handed_over"] + sum(account["dropped"].values())
    return bool(account["accepted"] == account["delivered"] + left)


def main() -> int:
    """Run for the given minutes; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--c-forks", action="store_true")
    options = parser.parse_args()
    print(f"seed: {options.seed}")
    with tempfile.TemporaryDirectory() as scratch:
        soak = Soak(options.seed, Path(scratch), ["fork", "alone", *(["c-fork"] if options.c_forks else [])])
        try:
            end = time.monotonic() + options.minutes * 60
            while time.monotonic() < end:
                soak.round()
            return 0 if soak.finish() else 1
        finally:
            soak.close()


if __name__ == "__main__":
    sys.exit(main())
