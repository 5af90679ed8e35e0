"""Finding: one result of a check; and the time limit of a check."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from ts_autotrack._core.redaction import mask, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Level: TypeAlias = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")
MAX_TEXT = 1_000
"""Characters of a text in a finding: servers, applications and files may say more."""


class Finding(NamedTuple):
    """One result of a check.

    Attributes:
        check: Name of the check, such as "endpoint".
        level: "ok"; "note" for a fact to know; "warning" if events may be lost, late or wrong; "error" if no events
            arrive, or a credential is in danger.
        seen: The facts.
        do: Advice; an empty text if there is nothing to do.
    """

    check: str
    level: Level
    seen: str
    do: str = ""

    def safe(self) -> Finding:
        """Return the finding for people: one line each, credentials masked, no control characters, bounded."""
        return self._replace(seen=_safe(self.seen), do=_safe(self.do))


def within(seconds: float, name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Return the findings of a check, at most `seconds` later.

    A check that takes longer goes on in its daemon thread, which ends with the process: neither a look-up of a host nor
    a dead file system can be interrupted. A fault of a check is a finding.
    """
    found: list[Finding] = []

    def run() -> None:
        try:
            for finding in check():
                found.append(finding)  # noqa: PERF402 - findings before a fault or the time limit count
        except Exception as error:  # noqa: BLE001 - one check must not hide the others
            found.append(Finding(name, "warning", f"the check failed: {type(error).__name__}: {error}", _REPORT))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        found.append(Finding(name, "error", f"the check did not end within {seconds:g} s", _SLOW))
    return list(found)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Example:
        >>> count(1, "event"), count(2, "event"), count(2, "entry", "entries")
        ('1 event', '2 events', '2 entries')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"


def _safe(text: str) -> str:
    shown = printable(mask(text))
    return shown if len(shown) <= MAX_TEXT else f"{shown[:MAX_TEXT]}..."


_REPORT = "Please report this fault of ts-autotrack doctor."
_SLOW = "Look for a file system or name server that does not answer."
