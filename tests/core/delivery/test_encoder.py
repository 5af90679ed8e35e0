"""Items: their fields, timestamps and text, and records which cannot be encoded."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_autotrack import flush, track
from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.clock import Clock
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.identity.scope import Scope

if TYPE_CHECKING:
    from tests.conftest import Inspector, ScriptedServer


@pytest.mark.usefixtures("acting")
def test_item_has_exactly_the_fields_of_the_contract(server: ScriptedServer) -> None:
    """An item has exactly the contract's fields; its timestamp has microseconds and `Z`."""
    before = dt.datetime.now(dt.timezone.utc)
    track("e", {"a": 1})
    assert flush(10)
    after = dt.datetime.now(dt.timezone.utc)
    (item,) = server.items
    assert set(item) == {"event_name", "user_id", "properties", "timestamp", "context"}
    assert set(item["context"]) == {"source", "event_id", "group_id"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", item["timestamp"])
    assert before <= dt.datetime.fromisoformat(item["timestamp"][:-1] + "+00:00") <= after


def stamp(clock: Clock, user_id: str, microseconds: int) -> str:
    """Return the timestamp of an event."""
    fraction = clock.advance(clock.user(user_id), microseconds * 1_000)
    return f"{clock.text.decode()}{fraction:06d}Z"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1_500_000)), max_size=60))
def test_timestamps_of_a_user_only_grow(moments: list[tuple[str, int]]) -> None:
    """For readings of the clock in any order, a user's timestamps are distinct, in order, and near the clock."""
    clock, last = Clock(), {"a": "", "b": "", "c": ""}
    latest = 0
    for user, microseconds in moments:
        latest = max(latest, microseconds)
        text = stamp(clock, user, microseconds)
        assert text > last[user]
        last[user] = text
        second = float(text[17:26])
        assert second * 1_000_000 <= latest + 1_100_000


@given(st.lists(st.integers(-5_000_000_000, 5_000_000_000), max_size=60))
def test_timestamps_follow_a_clock_that_jumps(moments: list[int]) -> None:
    """After any jump of the clock, also before 1970, a timestamp is never early, and 2 s late at most."""
    clock = Clock()
    for microseconds in moments:
        text = stamp(clock, "u", microseconds)
        lead = dt.datetime.fromisoformat(text[:-1]) - dt.datetime(1970, 1, 1) - dt.timedelta(microseconds=microseconds)  # noqa: DTZ001
        assert dt.timedelta() <= lead <= dt.timedelta(seconds=2.001)


def test_timestamps_of_a_handler_are_a_millisecond_apart_until_a_second_ahead() -> None:
    """The vendor asks for 1 ms between events; a user's tight loop does not run into the future."""
    clock = Clock()
    texts = [stamp(clock, "u", 0) for _ in range(5_000)]
    assert texts[:3] == ["1970-01-01T00:00:00.000000Z"[:20] + f"{n:06d}Z" for n in (1_000, 2_000, 3_000)]
    assert texts[-1] < "1970-01-01T00:00:01.01"
    assert texts == sorted(set(texts))
    for n in range(25_000):
        stamp(clock, f"other{n}", 0)
    assert len(clock._users) + len(clock._older_users) <= 20_001


def test_a_record_that_cannot_be_encoded_costs_itself_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """If building an item fails, the record is dropped as a fault, and the next item is built."""
    monkeypatch.setattr(diagnostics, "reraise", False)
    raw = Scope("u", "g", properties={"raw": object()})
    (item,), _ = Encoder(Counters()).encode([(EventTemplate("/track", "e", {}, "here"), raw, 1, None)], 0)
    assert b'"raw":"<not JSON: object>"' in item[1]
    counts, site, scope = Counters(), EventTemplate("/track", "e", {}, "here"), Scope("u", "g")
    broken: Any = (site, scope, None, None)
    items, done = Encoder(counts).encode([broken, (site, scope, 1, None)], 0)
    assert done == 2
    assert [sequence for _, _, sequence in items] == [2]
    assert counts.dropped == {"fault": 1}


def test_surrogates_anywhere_are_mended(inspector: Inspector) -> None:
    """A lone surrogate in a key, an id or an event's name is replaced alone; a pair becomes its character."""
    track("name\ud800", {"key\udc00": "x", "pair": "\ud83d\ude00", "when": Decimal("1.10")}, user_id="id\ud800")
    track("beside", user_id="u")
    assert flush(10)
    first, second = inspector.items()
    assert (first["event_name"], first["user_id"]) == ("name\ufffd", "id\ufffd")
    assert first["properties"] == {"key\ufffd": "x", "pair": "\U0001f600", "when": 1.1}
    assert second["event_name"] == "beside"
