"""The table of guarantees, made from the ledger of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.faults.__main__ import table

if TYPE_CHECKING:
    from pathlib import Path


def test_observations_of_several_processes_make_one_table(tmp_path: Path) -> None:
    """Observations of one fault add up, in any order; figures that vary between runs become words."""
    seen = {"events": 2, "lost": 0, "duplicated": 0, "counted": True, "twice": False}
    rows = [
        {"fault": "reset", "kept": "outbox", **seen},
        {"fault": "kill", "kept": "outbox", **seen, "counted": False},
        {"fault": "reset", "kept": "memory", **seen, "events": 4},
        {"fault": "lost answer", "kept": "memory", **seen, "twice": True, "duplicated": 2},
        {"fault": "reset", "kept": "outbox", **seen},
    ]
    ledger = tmp_path / "ledger"
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert table(ledger).splitlines()[2:] == [
        "| reset | memory, outbox | 4 | 0 | 0 |",
        "| lost answer | memory | 2 | 0 | same ids |",
        "| kill | outbox | all | 0 | 0 |",
    ]
