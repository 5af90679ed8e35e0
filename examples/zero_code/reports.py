"""The work of the shop."""

from __future__ import annotations

REPORTS = (1, 2)


def export_report(number: int, file_format: str) -> str:
    """Return a report as a text.

    Raises:
        LookupError: If there is no such report.
    """
    if number not in REPORTS:
        message = f"there is no report {number}"
        raise LookupError(message)
    return f"report,{number},{file_format}\n"


class Archive:
    """The archive of reports."""

    def store_all(self) -> int:
        """Store all reports; return their number."""
        return len(REPORTS)
