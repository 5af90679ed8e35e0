"""Why nothing arrives from a process, or not everything: plain sentences made from the report of the process."""

from __future__ import annotations

from typing import Any

from ts_autotrack._core.notices import DROPS, OFF

SHOWN = 3
"""Places in one sentence."""


def diagnose(report: dict[str, Any]) -> str:
    """Return the reasons why nothing, or not everything, arrives from a process, with the remedy.

    Args:
        report: Report of the process. Missing keys and values of other types are taken for unknown.

    Returns:
        Sentences, the main reason first; empty if everything arrives.
    """
    account = _Account(report)
    if off := report.get("off_reason"):
        cause, remedy = OFF.get(off, (off, "")) if isinstance(off, str) else (off, "")
        return f"The library is off: {cause}. {remedy}".rstrip()
    sentences = [
        _nothing_tracked(report, account),
        _unattributed(report, account),
        _waiting(report, account),
        _rejected(account),
        *_dropped(account),
    ]
    return " ".join(filter(None, sentences))


class _Account:
    """Numbers of a report."""

    def __init__(self, report: dict[str, Any]) -> None:
        stats = _object(report.get("stats"))
        self.accepted = _number(stats.get("accepted"))
        self.delivered = _number(stats.get("delivered"))
        self.pending = _number(stats.get("pending"))
        self.rejected = _number(stats.get("rejected"))
        drops = _object(stats.get("dropped")) or _object(report.get("drops"))
        self.dropped = {reason: _number(count) for reason, count in drops.items() if _number(count)}


def _nothing_tracked(report: dict[str, Any], account: _Account) -> str:
    if account.accepted:
        return ""
    watched = _list(report.get("functions"))
    if not watched and "functions" in report:
        return (
            "Nothing is tracked in this process: no decorated function and no feature of the settings is loaded. Put "
            "@track_feature on a function, or name the function in TS_AUTOTRACK_FEATURES."
        )
    number = (
        f"{_count(len(watched), 'function')} {'is' if len(watched) == 1 else 'are'} tracked, but" if watched else ""
    )
    begin = f"{number} no event has been tracked yet".strip().capitalize()
    return f"{begin}. An event means success: call a tracked function, and look for an exception if it was called."


def _unattributed(report: dict[str, Any], account: _Account) -> str:
    number = account.dropped.get("unattributed", 0)
    if not number:
        return ""
    places = [_place(entry) for entry in _list(report.get("unattributed")) if _object(entry).get("place")]
    more = f" and {_count(len(places) - SHOWN, 'more place')}" if len(places) > SHOWN else ""
    where = f" at {', '.join(places[:SHOWN])}{more}" if places else ""
    return f"No user was known for {_count(number, 'event')}{where}. {DROPS['unattributed'][1]}"


def _waiting(report: dict[str, Any], account: _Account) -> str:
    if not account.pending:
        return ""
    if account.delivered:
        return "" if not report.get("ended") else f"{_wait(account.pending)} for the next process with this outbox."
    warnings = [text for text in _list(report.get("warnings")) if isinstance(text, str)]
    reason = f" The last warning: {warnings[-1]}" if warnings else " The server has accepted nothing so far."
    return f"{_wait(account.pending)} to be sent.{reason}"


def _rejected(account: _Account) -> str:
    if not account.rejected:
        return ""
    were = "was" if account.rejected == 1 else "were"
    return (
        f"{_count(account.rejected, 'event')} {were} refused for good. The refused items name the field and the reason."
    )


def _dropped(account: _Account) -> list[str]:
    sentences = []
    for reason, number in account.dropped.items():
        were = f"{_count(number, 'event')} {'was' if number == 1 else 'were'}"
        if reason == "unattributed":
            continue
        if reason in DROPS:
            cause, remedy = DROPS[reason]
            sentences.append(f"{were} dropped as {reason}: {cause}. {remedy}".rstrip())
        else:
            sentences.append(f"{were} tracked while the library was off ({reason}).")
    return sentences


def _wait(number: int) -> str:
    return f"{_count(number, 'event')} {'waits' if number == 1 else 'wait'}"


def _place(entry: dict[str, Any]) -> str:
    return f"{entry['place']} ({_count(_number(entry.get('count')), 'event')})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _number(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
