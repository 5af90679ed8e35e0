"""Reports of processes, and why nothing arrives from them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

import httpx
import orjson
import pytest

from tests.inspector.conftest import get
from ts_autotrack._core.notices import DROPS, OFF
from ts_autotrack.inspector._diagnosis import diagnose
from ts_autotrack.inspector._reports import MOST_BYTES, MOST_PROCESSES, Reports
from ts_autotrack.typing import DropReason

if TYPE_CHECKING:
    from tests.conftest import Inspector


def stats(**numbers: Any) -> dict[str, Any]:
    """Return a report with these numbers."""
    return {"pid": 1, "program": "app", "stats": {"accepted": 5, "delivered": 0, "dropped": {}, **numbers}}


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (stats(delivered=5), ""),
        ({**stats(), "off_reason": "no_api_key"}, "no key is set. Set THRIVESTACK_API_KEY"),
        ({**stats(), "off_reason": "in_tests"}, "The library is off: pytest runs, or has started the process"),
        ({**stats(), "off_reason": "disabled"}, "Unset TS_AUTOTRACK_DISABLED"),
        ({**stats(), "off_reason": ["odd"]}, "The library is off: ['odd']."),
        (stats(accepted=0), "No event has been tracked yet. An event means success"),
        ({**stats(accepted=0), "functions": [["m:f", "f", "watched"]]}, "1 function is tracked, but no event has been"),
        ({**stats(accepted=0), "functions": []}, "no decorated function and no feature of the settings is loaded"),
        (
            {
                **stats(dropped={"unattributed": 5}),
                "unattributed": [{"place": "views.py:42 in export", "event": "feature_used", "count": 5}],
            },
            "No user was known for 5 events at views.py:42 in export (5 events). Name the user by ",
        ),
        (
            {**stats(pending=5), "warnings": ["answered 401"]},
            "5 events wait to be sent. The last warning: answered 401",
        ),
        (stats(pending=1), "1 event waits to be sent. The server has accepted nothing so far."),
        (stats(rejected=1), "1 event was refused for good."),
        (stats(delivered=4, dropped={"queue_full": 1}), "raise TS_AUTOTRACK_MAX_QUEUE"),
        (stats(dropped={"in_tests": 2}), "2 events were tracked while the library was off (in_tests)."),
        ({"pid": 1, "program": "p", "stats": [], "drops": 7, "unattributed": {}, "functions": 1}, "Nothing is tracked"),
        ({**stats(dropped={"unattributed": 1}), "unattributed": [7, {"place": 3}]}, "1 event at 3 (0 events)"),
    ],
)
def test_diagnosis(report: dict[str, Any], sentence: str) -> None:
    """The diagnosis says why not everything arrives, and how to change this; values of odd types are no error."""
    found = diagnose(report)
    assert sentence in found
    assert bool(found) == bool(sentence)


def test_each_drop_reason_has_a_cause() -> None:
    """Every drop reason is explained in one of the two tables that doctor and the inspector share."""
    assert sorted([*DROPS, *OFF]) == sorted(get_args(DropReason))


def test_report_is_shown(cleared: Inspector) -> None:
    """The last report of a process is on GET /problems and GET /reports, with its time and the diagnosis."""
    for number in (1, 2):
        report = {**stats(dropped={"unattributed": number}), "pid": 10**9}  # no process of this machine has it
        assert httpx.post(f"{cleared.url}/reports", json=report).status_code == 200
    for path in ("/problems", "/reports"):
        (found,) = [process for process in get(cleared, path)["processes"] if process["pid"] == 10**9]
        assert found["stats"]["dropped"] == {"unattributed": 2}
        assert found["diagnosis"].startswith("No user was known for 2 events")
        assert found["seen_at"].endswith("Z")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "the report is not JSON"),
        (b"[" * 60_000, 400, "the report is not JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"pid": true, "program": "p"}', 400, "'pid', a whole number"),
        (b'{"pid": 1, "program": "\\ud800"}', 400, "the report is not JSON"),
        (b'{"pid": 1, "program": "p", "number": NaN}', 400, "the report is not JSON"),
        (b'{"pid": 1, "program": "p", "number": 1e400}', 400, "the report is not JSON"),
        (b" " * (MOST_BYTES + 1), 413, "more than 64000 bytes"),
    ],
)
def test_bad_reports_are_refused(inspector: Inspector, body: bytes, status: int, message: str) -> None:
    """A body that is no report, or too long, is refused with the reason."""
    answer = httpx.post(f"{inspector.endpoint}/reports", content=body)
    assert (answer.status_code, message in answer.json()["message"]) == (status, True)


def test_processes_of_two_containers_are_two() -> None:
    """Processes with the same pid and program are told apart by their start; a later report replaces an earlier one."""
    reports = Reports()
    for start in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", None, ["odd"]):
        for warning in ("first", "second"):
            report = {"pid": 1, "program": "uvicorn", "started_at": start, "warnings": [warning]}
            reports.add(json.dumps(report).encode())
    found = json.loads(orjson.dumps(reports.all()))
    assert [report["warnings"] for report in found] == [["second"]] * 4


def test_reports_are_bounded() -> None:
    """The processes that reported last are kept."""
    reports = Reports()
    for pid in range(MOST_PROCESSES + 10):
        reports.add(json.dumps({"pid": pid, "program": "p"}).encode())
    assert len(reports.all()) == MOST_PROCESSES
    assert [number for number, _ in reports.since(MOST_PROCESSES + 8)] == [209, 210]
