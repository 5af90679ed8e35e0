"""Reports of processes that send their events to the inspector."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import orjson

from ts_autotrack.inspector._diagnosis import diagnose

MOST_PROCESSES = 200
"""Processes whose last report is kept."""
MOST_BYTES = 64_000
"""Bytes in a report."""


class ReportError(ValueError):
    """The report is not valid; the message says why."""


class Reports:
    """The last report of each process, as JSON: read again, a hostile report would need twenty times its size."""

    def __init__(self) -> None:
        self._number = 0
        self._processes: dict[tuple[int, str, str], tuple[int, orjson.Fragment]] = {}

    def add(self, body: bytes) -> None:
        """Keep a report, instead of the earlier report of the process.

        Raises:
            ReportError: If the body is not a report.
        """
        report = _parse(body)
        # Containers give the same pid to many processes; earlier versions of the library do not tell the start.
        key = (report["pid"], report["program"], str(report.get("started_at")))
        now = datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
        text = json.dumps({**report, "seen_at": now, "diagnosis": diagnose(report)}, ensure_ascii=False)
        self._number += 1
        self._processes.pop(key, None)
        self._processes[key] = (self._number, orjson.Fragment(text))
        if len(self._processes) > MOST_PROCESSES:
            del self._processes[next(iter(self._processes))]

    def since(self, number: int) -> list[tuple[int, orjson.Fragment]]:
        """Return reports after the report `number`, with their numbers, oldest first."""
        return [entry for entry in self._processes.values() if entry[0] > number] if number < self._number else []

    def all(self) -> list[orjson.Fragment]:
        """Return the reports, with "seen_at" and "diagnosis", the latest first."""
        return [report for _, report in reversed(self._processes.values())]


def _parse(body: bytes) -> dict[str, Any]:
    try:
        report = json.loads(body.decode())
        json.dumps(report, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        message = f"the report is not JSON: {error}"
        raise ReportError(message) from None
    if not isinstance(report, dict):
        message = "the report must be a JSON object"
        raise ReportError(message)
    pid, program = report.get("pid"), report.get("program")
    if not isinstance(pid, int) or isinstance(pid, bool) or not isinstance(program, str):
        message = "the report needs 'pid', a whole number, and 'program', a text"
        raise ReportError(message)
    return report
