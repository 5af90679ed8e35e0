"""README's table of guarantees, made of what the fault tests have seen.

    python -m tests.faults                  run the tests and write the table
    python -m tests.faults --check LEDGER   compare the table with the ledger that a run has left

A run of the tests leaves its ledger where the environment variable TS_AUTOTRACK_TEST_LEDGER says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.conftest import LEDGER

README = Path(__file__).parents[2] / "README.md"
SKIPPABLE = "| full disk"
"""Needs a file system of its own, which not every machine lets us mount."""
BEGIN, END = "<!-- guarantees: python -m tests.faults -->\n", "<!-- end of guarantees -->\n"


def table(ledger: Path) -> str:
    """Return the table of what a run has seen."""
    rows = json.loads(ledger.read_text())
    merged: dict[tuple[str, ...], list[str]] = {}
    for row in sorted(rows, key=lambda row: (row["kept"], rows.index(row))):
        seen = (row["fault"], *(str(row[column]) for column in ("events", "lost", "duplicated")))
        merged.setdefault(seen, []).append(row["kept"])
    lines = ["| fault | events wait in | events | lost | duplicated |", "|---|---|---|---|---|"]
    lines += [f"| {fault} | {', '.join(kept)} | {' | '.join(seen)} |" for (fault, *seen), kept in merged.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check the table; return the exit status."""
    before, _, rest = README.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    if arguments:
        new = table(Path(arguments[-1])).splitlines()
        missing = [row for row in old.splitlines() if row not in new and not row.startswith(SKIPPABLE)]
        unknown = [row for row in new if row not in old.splitlines()]
        for what, rows in (("not seen", missing), ("not in README", unknown)):
            for row in rows:
                print(f"{what}: {row}", file=sys.stderr)
        if missing or unknown:
            print("README's table does not hold. To write it anew: python -m tests.faults", file=sys.stderr)
        return int(bool(missing or unknown))
    with tempfile.TemporaryDirectory() as scratch:
        ledger = Path(scratch) / "ledger"
        command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent)]
        status = subprocess.run(command, env={**os.environ, LEDGER: str(ledger)}, check=False).returncode
        if not status:
            README.write_text(before + BEGIN + table(ledger) + END + after)
        return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
