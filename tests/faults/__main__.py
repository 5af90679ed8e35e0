"""Generates and checks the table of guarantees in tests/faults/README.md.

    python -m tests.faults                  run the fault tests and write the table
    python -m tests.faults --check LEDGER   compare the table with the ledger of an earlier run

A test run appends its observations to the file named by the environment variable AUTOTRACK_FAULTS_LEDGER.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.conftest import LEDGER

GUARANTEES = Path(__file__).parent / "README.md"
SKIPPABLE = "| full disk"
"""Start of a row that may be missing: its test mounts a file system, and some machines forbid mounting."""
BEGIN, END = "<!-- guarantees: python -m tests.faults -->\n", "<!-- end of guarantees -->\n"


def observations(ledger: Path) -> dict[tuple[str, str], Counter[str]]:
    """Return the figures of each fault and storage, summed over the tests; tests may have run in any order."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    for line in ledger.read_text().splitlines():
        row = json.loads(line)
        figures = rows.setdefault((row.pop("fault"), row.pop("kept")), Counter())
        figures.update(row)
        figures["uncounted"] += not row["counted"]
    return rows


def table(ledger: Path) -> str:
    """Return the table for a ledger. Storages with equal figures share a row.

    Instead of a number that varies between runs, the table has "all" for events, and "same ids" for duplicates.
    """
    merged: dict[tuple[str, ...], list[str]] = {}
    for (fault, kept), row in sorted(observations(ledger).items(), key=lambda item: item[0][1]):
        events = "all" if row["uncounted"] else row["events"]
        duplicated = "same ids" if row["twice"] else row["duplicated"]
        merged.setdefault((fault, str(events), str(row["lost"]), str(duplicated)), []).append(kept)
    lines = ["| fault | events wait in | events | lost | duplicated |", "|---|---|---|---|---|"]
    lines += [f"| {fault} | {', '.join(kept)} | {' | '.join(seen)} |" for (fault, *seen), kept in merged.items()]
    return "\n".join(lines) + "\n"


def committed_table() -> str:
    """Return the table in the README."""
    return GUARANTEES.read_text().partition(BEGIN)[2].partition(END)[0]


def check(ledger: Path) -> int:
    """Report rows that differ between the README and a ledger; return the exit status."""
    committed, measured = committed_table().splitlines(), table(ledger).splitlines()
    missing = [row for row in committed if row not in measured and not row.startswith(SKIPPABLE)]
    unknown = [row for row in measured if row not in committed]
    for problem, rows in (("missing in the run", missing), ("missing in the table", unknown)):
        for row in rows:
            print(f"{problem}: {row}", file=sys.stderr)
    if missing or unknown:
        print("tests/faults/README.md is out of date. To write it again: python -m tests.faults", file=sys.stderr)
    return int(bool(missing or unknown))


def write() -> int:
    """Run the fault tests and write the table; return the exit status of pytest."""
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Path(scratch) / "ledger"
        command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent)]
        status = subprocess.run(command, env={**os.environ, LEDGER: str(ledger)}, check=False).returncode
        if not status:
            before, _, rest = GUARANTEES.read_text().partition(BEGIN)
            GUARANTEES.write_text(before + BEGIN + table(ledger) + END + rest.partition(END)[2])
        return status


if __name__ == "__main__":
    sys.exit(check(Path(sys.argv[-1])) if sys.argv[1:] else write())
