"""track, identify and group: their items, and no exception for any argument."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from ts_autotrack import flush, group, identify, stats, track, track_feature, user_context
from ts_autotrack._core import diagnostics

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector


EAST = dt.timezone(dt.timedelta(hours=2))


class Broken(dt.tzinfo):
    """A time zone without its data."""

    def _fail(self, _: dt.datetime | None) -> Any:
        raise KeyError

    utcoffset = dst = tzname = _fail


def test_call_wins_over_the_context(inspector: Inspector) -> None:
    """User, group, context and properties of the call win over the enclosing block."""
    with user_context("u", group_id="g", location="x", plan="pro"):
        track("e", {"plan": "free"}, user_id=7, group_id="h", context={"location": "y", "product_id": "p"})
    assert flush(10)
    (item,) = inspector.items()
    assert (item["user_id"], item["properties"]) == ("7", {"plan": "free"})
    with user_context("u", context={"group_id": 7}):
        track("in context", context={"group_id": 8})
        track("around")
    assert flush(10)
    assert [i["context"].get("group_id") for i in inspector.items()[1:]] == ["8", "7"]
    del item["context"]["event_id"]
    assert item["context"] == {"source": "product", "location": "y", "product_id": "p", "group_id": "h"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2024-10-20T15:51:36.514000Z", "2024-10-20T15:51:36.514000Z"),
        ("2024-10-20T17:51:36+02:00", "2024-10-20T15:51:36.000000Z"),
        (dt.datetime(2024, 10, 20, 15, 51, 36, 514_000), "2024-10-20T15:51:36.514000Z"),  # noqa: DTZ001
        (dt.datetime(2024, 10, 20, 15, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2024-10-20T13:00:00.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_729_439_496.5, "2024-10-20T15:51:36.500000Z"),
        (dt.datetime.min, "0001-01-01T00:00:00.000000Z"),  # noqa: DTZ901
        (dt.datetime.max, "9999-12-31T23:59:59.999999Z"),  # noqa: DTZ901
        (-62_135_596_800, "0001-01-01T00:00:00.000000Z"),
        ("0999-12-31T23:00:00-01:00", "1000-01-01T00:00:00.000000Z"),
    ],
)
def test_timestamps_of_the_past(inspector: Inspector, given: Any, expected: str) -> None:
    """A timestamp given by the application is sent unchanged, in the contract's form."""
    track("e", user_id="u", timestamp=given)
    assert flush(10)
    assert inspector.items()[0]["timestamp"] == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: track(""), "the event's name"),
        (lambda: track(None, user_id="u"), "the event's name"),  # type: ignore[arg-type]
        (lambda: track("e", [1], user_id="u"), "properties must be a dict, not list"),  # type: ignore[arg-type]
        (lambda: track("e", user_id="u", timestamp="yesterday"), "point in time"),
        (lambda: track("e", user_id="u", timestamp=1e30), "point in time"),
        (lambda: track("e", user_id="u", timestamp=object()), "point in time"),  # type: ignore[arg-type]
        (lambda: track("e", user_id="u", timestamp=True), "point in time"),
        (lambda: track("e", user_id="u", timestamp=float("nan")), "point in time"),
        (lambda: track("e", user_id="u", timestamp=dt.datetime.min.replace(tzinfo=EAST)), "point in time"),
        (lambda: track("e", user_id="u", timestamp=dt.datetime(2024, 1, 1, tzinfo=Broken())), "point in time"),
        (lambda: group("g", group_type=7), "group_type=...): must be a text, not int"),  # type: ignore[arg-type]
        (lambda: identify(None, user_id="u"), "traits must be a dict"),  # type: ignore[arg-type]
        (lambda: group("", {}), "the account's id"),
        (lambda: group("g", 5), "the account's id"),  # type: ignore[arg-type]
    ],
)
def test_what_names_nothing_to_send_is_counted_and_explained(
    inspector: Inspector, caplog: pytest.LogCaptureFixture, call: Callable[[], None], message: str
) -> None:
    """A call which cannot become an event never raises; the call is counted, and the log names its line once."""
    call()
    call()
    track("e", user_id="u", group_id="g")
    assert flush(10)
    assert len(inspector.items()) == 1
    assert stats().dropped == {"invalid": 2}
    assert caplog.text.count(message) == 1
    assert "tests.core.capture.test_manual, line" in caplog.text


class Unreadable(Mapping[str, Any]):
    """A mapping that raises on each access, as session data do while their cache is away."""

    def __getitem__(self, key: str) -> Any:
        raise ConnectionError(key)

    def __iter__(self) -> Any:
        raise ConnectionError

    def __len__(self) -> int:
        return 1


def test_unreadable_mappings_are_marked(inspector: Inspector) -> None:
    """A mapping that cannot be read costs its values, and not the event; the event carries a mark."""
    with user_context("u", group_id="g", context=Unreadable()):
        track("e", Unreadable(), context=Unreadable())
        identify(Unreadable())
        group("h", Unreadable())
        with track_feature("block", properties=Unreadable()):
            pass
    assert flush(5)
    mark = "<not JSON: tests.core.capture.test_manual.Unreadable: ConnectionError>"
    assert [item.get("properties", item.get("traits", {}))["..."] for item in inspector.items()] == [mark] * 4
    assert stats().replaced == 4


@pytest.mark.usefixtures("acting")
@pytest.mark.parametrize("call", [lambda: track("e", {"a": [1]}), lambda: identify({"a": [1]}), lambda: group("g")])
def test_events_at_the_recursion_limit(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None]) -> None:
    """At any depth of the stack with space for a function call, the functions to send events never raise."""
    monkeypatch.setattr(diagnostics, "reraise", False)

    def any_function() -> None: ...

    def at_depth(function: Callable[[], None], depth: int) -> bool:
        try:
            if depth:
                return at_depth(function, depth - 1)
            function()
        except RecursionError:
            return False
        return True

    deepest = next(depth for depth in range(sys.getrecursionlimit(), 0, -1) if at_depth(lambda: any_function(), depth))  # noqa: PLW0108
    deepest -= sys.gettrace() is not None
    assert [depth for depth in range(deepest, deepest - 40, -1) if not at_depth(call, depth)] == []
