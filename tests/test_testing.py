"""capture_events: the events that a test sees, and the state after the test."""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import inspect
import io
import re
import threading
import unittest
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import MagicMock

import pytest

import ts_autotrack.testing
from tests.conftest import run_python, wait_until
from ts_autotrack import (
    bind_user,
    configure,
    current_user,
    flush,
    group,
    identify,
    rejected,
    request_scope,
    shutdown,
    stats,
    suppress,
    track,
    track_feature,
    user_context,
)
from ts_autotrack.testing import CapturedEvent, Events, capture_events, read
from ts_autotrack.typing import Stats

if TYPE_CHECKING:
    from tests.conftest import Inspector, ScriptedServer


@track_feature("report_export")
def export() -> None:
    """Be used."""


@track_feature("report_export", capture=["number"])
async def export_later(number: int) -> None:
    """Be used, with a captured argument."""


def closed(account: Stats) -> Stats:
    """Return an account after checking its sum, without the state of the queue."""
    settled = account.delivered + account.rejected + account.handed_over + sum(account.dropped.values())
    assert account.accepted == settled + account.pending, account
    return account._replace(in_flight=0, capacity=0)


def own_threads() -> list[str]:
    """Return the library's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ts_autotrack")]


def test_events_show_everything_that_would_be_sent() -> None:
    """An event has names, ids, properties, context and time; identify and group have traits."""
    with capture_events() as events, user_context("user_1", group_id="account_1", device_type="mobile", plan="pro"):
        asyncio.run(export_later(3))
        track("invite_sent", {"role": "admin"}, timestamp=datetime(2024, 10, 20, 15, 51, 36, 514000, timezone.utc))
        identify({"user_email": "a@example.com"})
        group("account_2", {"group_name": "Two"})
    export_, invite, user, account = events.all
    assert (export_.path, export_.event_name, export_.feature_name) == ("/track", "feature_used", "report_export")
    assert (export_.user_id, export_.group_id) == ("user_1", "account_1")
    expected = {"feature_name": "report_export", "action": "export_later", "plan": "pro", "number": 3}
    assert export_.properties == expected
    assert export_.context["device_type"] == "mobile"
    assert abs(datetime.now(timezone.utc) - export_.timestamp) < timedelta(minutes=5)
    assert (invite.event_name, invite.feature_name) == ("invite_sent", None)
    assert invite.timestamp == datetime(2024, 10, 20, 15, 51, 36, 514000, timezone.utc)
    assert (user.path, user.traits) == ("/identify", {"user_email": "a@example.com"})
    assert (account.path, account.group_id, account.traits) == (
        "/group",
        "account_2",
        {"group_name": "Two", "group_type": "Account"},
    )
    assert list(events) == events.all
    assert events[0] == export_


def test_events_are_found_by_name_and_user() -> None:
    """A name is a feature's or an event's; `one` demands a single event."""
    with capture_events() as events:
        with user_context("user_1", group_id="a"):
            export()
            export()
        track("invite_sent", user_id="user_2")
        assert events.one("invite_sent").user_id == "user_2"
        assert len(events.named("report_export")) == len(events.named("feature_used")) == 2
        assert [event.event_name for event in events.for_user("user_2")] == ["invite_sent"]
        assert (events.named("other"), events.for_user("other"), len(events)) == ([], [], 3)


def test_a_failed_assertion_shows_the_captured_events() -> None:
    """The message of `one` names all events, and those without a user with their places."""
    with capture_events() as events, user_context("user_1", group_id="account_1"):
        track("invite_sent", {"role": "admin"})
        with user_context(""):
            export()
        with suppress():
            export()
        with pytest.raises(AssertionError) as none:
            events.one("report_export")
        track("invite_sent")
        with pytest.raises(AssertionError, match="expected one event named 'invite_sent', not 2"):
            events.one("invite_sent")
    text = str(none.value)
    assert "expected one event named 'report_export', not 0. Captured events (1):" in text
    assert "invite_sent user=user_1 group=account_1 {'role': 'admin'}" in text
    assert re.search(
        r"Without a user, never sent \(1\):\n.*feature=report_export .*tracked by tests.test_testing", text
    )
    assert "Dropped: {'suppressed': 1}" in text
    with pytest.raises(AssertionError, match="expected one event, not 0"), capture_events() as nothing:
        nothing.one()


def test_an_assertion_inside_the_block_gets_a_note() -> None:
    """From Python 3.11, any AssertionError that leaves the block shows the captured events."""
    error = AssertionError("wrong")
    with pytest.raises(AssertionError), capture_events():  # noqa: PT012 - the error leaves the block
        track("invite_sent", user_id="user_1")
        raise error
    assert not hasattr(error, "add_note") or "invite_sent user=user_1" in error.__notes__[0]


def test_unattributed_events_are_shown_with_their_places() -> None:
    """An event without a user is never sent; the test sees the event and its place. A mock is nobody."""
    with capture_events() as events:
        with user_context(MagicMock().user.id, group_id="account_1"):
            asyncio.run(export_later(5))
        (event,) = events.unattributed
        assert (event.feature_name, event.user_id, event.group_id) == ("report_export", None, "account_1")
        assert event.properties["number"] == 5
        assert event.place.startswith("tests.test_testing.export_later, line ")
        assert (events.all, events.dropped) == ([], {"unattributed": 1})


@pytest.mark.parametrize(
    "settings",
    [
        *({"TS_AUTOTRACK_DISABLED": "1"}, {"DO_NOT_TRACK": "1"}, {"TS_AUTOTRACK_EXPORTER": "none"}, {}),
        *({"THRIVESTACK_API_KEY": "k", "TS_AUTOTRACK_OUTBOX": "o"}, {"THRIVESTACK_ENDPOINT": "no URL"}),
    ],
)
def test_capturing_is_active_whatever_the_settings_say(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a missing key nor `disabled` nor another exporter keeps events from a test."""
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with capture_events() as events:
        configure(disabled=True, endpoint="http://192.0.2.1", api_key="k")
        track("e", user_id="u")
        assert events.one("e").user_id == "u"
        assert flush(0)
    assert not Path("o").exists()


def test_capturing_starts_no_thread_and_imports_no_http_client() -> None:
    """In a process with a key, too: neither by the block, nor by `configure()`, `flush()` and `shutdown()` inside."""
    code = """
import sys, threading
from ts_autotrack import configure, flush, shutdown, stats, track
from ts_autotrack.testing import capture_events
with capture_events() as events:
    configure(api_key="k", flush_interval=1)
    track("e", user_id="u")
    print(events.one("e").user_id, flush(), shutdown(), stats().delivered)
print([name for name in ("httpx", "httpcore", "ssl") if name in sys.modules], threading.active_count(), stats())
"""
    done = run_python(code, THRIVESTACK_API_KEY="k", TS_AUTOTRACK_IN_TESTS="0", PYTEST_VERSION="8")
    assert done.stderr == ""
    assert done.stdout.startswith("u True True 1\n[] 1 Stats(accepted=0, delivered=0,"), done.stdout


def test_events_around_a_capture_are_delivered_and_captured_events_never(inspector: Inspector) -> None:
    """Events that waited before are delivered afterwards; each account closes for itself."""
    configure(flush_interval=60)
    for number in range(3):
        track("before", {"number": number}, user_id="user_1")
    before = closed(stats())
    with capture_events() as events:
        for _ in range(2_500):
            export()
            track("captured", user_id="user_1")
        assert len(events) == 2_500
        assert closed(stats())._replace(replaced=0) == Stats(5_000, 2_500, 0, 0, {"unattributed": 2_500})
    assert (stats().accepted, stats().dropped) == (before.accepted, {}) == (3, {})
    track("after", user_id="user_1")
    assert flush(10)
    assert [item["event_name"] for item in inspector.items()] == ["before"] * 3 + ["after"]
    assert closed(stats()).delivered == 4
    assert len(events) == 2_500


def test_no_request_begins_while_events_are_captured(server: ScriptedServer) -> None:
    """A worker that runs already waits with its requests for the end of the capture; a `flush` elsewhere waits, too."""
    track("first", user_id="u")
    assert flush(10)
    configure(flush_interval=0.001)
    track("waiting", user_id="u")
    with capture_events() as events:
        requests = len(server.requests)
        track("captured", user_id="u")
        threading.Event().wait(0.2)  # the sender's interval is over many times
        assert len(server.requests) == requests
        assert len(events) == 1
    assert flush(10)
    assert [item["event_name"] for item in server.items] == ["first", "waiting"]
    assert own_threads() == ["ts_autotrack"]


def test_events_of_all_threads_are_captured_or_delivered(inspector: Inspector) -> None:
    """While threads track, captures begin and end: each event is captured or delivered, none both, none lost."""
    stop, tracked, captured = threading.Event(), [0] * 4, []

    def work(thread: int) -> None:
        with user_context(f"user_{thread}", group_id="a"):
            while not stop.is_set():
                track("worked", {"number": tracked[thread]})
                export()
                tracked[thread] += 1
                stop.wait(0.001)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            with capture_events() as events:
                wait_until(lambda: len(events) > 20, "events are captured")
            captured += [(event.user_id, event.properties["number"]) for event in events.named("worked")]
            before = stats().accepted
            wait_until(lambda: stats().accepted > before + 20, "events are delivered")  # noqa: B023 - likewise
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert flush(30)
    items = [item for item in inspector.items() if item["event_name"] == "worked"]
    arrived = [(item["user_id"], item["properties"]["number"]) for item in items]
    every = [(f"user_{thread}", number) for thread in range(4) for number in range(tracked[thread])]
    assert sorted(arrived + captured) == sorted(every)
    assert closed(stats()).dropped == {}


def test_state_is_as_before() -> None:
    """Bindings, settings, stats, warnings and drops of a captured test do not reach the next test."""
    configure(exporter="memory", max_queue=7)
    track("before", user_id="u")
    for _ in range(2):
        with capture_events() as events:
            configure(max_queue=2, baggage=False)
            bind_user("user_1", group_id="a")
            for _ in range(3):
                export()
            track("value", {"value": object()})
            assert (events.dropped, stats().accepted) == ({"queue_full": 2}, 4)
            shutdown()
            track("late", user_id="u")
            assert events.dropped == {"queue_full": 2, "shutdown": 1}
        assert current_user().user_id is None
        assert closed(stats()) == Stats(1, 0, 1, 0, {})
        assert rejected() == []
    for _ in range(9):
        track("after", user_id="u")
    assert (stats().accepted, stats().dropped) == (10, {"queue_full": 3})


def test_once_only_warnings_belong_to_each_capture(caplog: pytest.LogCaptureFixture) -> None:
    """A test can demand a warning, whatever was logged before; afterwards the earlier warnings stay logged once."""
    configure(exporter="memory")
    for expected in (1, 2, 3, 3):
        if expected in (2, 3) and caplog.text.count("it has no user") < expected:
            with capture_events():
                export()
                flush()
        else:
            export()
            flush()
        assert caplog.text.count("it has no user") == expected


def test_captures_nest_and_end_in_any_order() -> None:
    """The inner capture has its own events, and the outer capture goes on, also if the outer capture ends first."""
    with capture_events() as outer:
        track("one", user_id="u")
        with capture_events() as inner:
            track("two", user_id="u")
        track("three", user_id="u")
        assert [event.event_name for event in outer] == ["one", "three"]
        assert [event.event_name for event in inner] == ["two"]
    first, second = capture_events(), capture_events()
    outer, inner = first.__enter__(), second.__enter__()
    track("four", user_id="u")
    first.__exit__(None, None, None)
    track("five", user_id="u")
    assert (len(outer), len(inner)) == (0, 2)
    second.__exit__(None, None, None)
    assert (len(outer), len(inner), stats().accepted) == (0, 2, 0)


def test_events_of_a_request_appear_at_its_end() -> None:
    """An event before the login waits for the user, inside the capture in which the event happened."""
    with contextlib.ExitStack() as outside:
        configure(exporter="memory")
        outside.enter_context(request_scope())
        export()  # before the capture: belongs to the process
        with capture_events() as events:
            with request_scope():
                export()
                assert (len(events), stats().pending) == (0, 1)
                bind_user("user_1")
            assert events.one("report_export").user_id == "user_1"
            with capture_events() as inner, contextlib.ExitStack() as request:
                request.enter_context(request_scope())
                export()
                shutdown()
            assert inner.dropped == {"unattributed": 1}
        bind_user("user_2")
    assert read().one("report_export").user_id == "user_2"
    assert closed(stats()).delivered == 1


def test_a_request_that_outlives_its_capture_delivers_nothing() -> None:
    """The held events of the capture stay with the capture."""
    configure(exporter="memory")
    with capture_events() as events:
        request = request_scope().begin()
        with request:
            export()
    with request:
        bind_user("user_1")
    request.end()
    assert events.one("report_export").user_id == "user_1"
    assert closed(stats()).accepted == 0
    assert read().all == []


def test_tasks_and_async_blocks_are_captured() -> None:
    """`async with` is the same block; events of child tasks and executor threads are captured."""

    async def test() -> Events:
        async with capture_events() as events:
            with user_context("user_1", group_id="a"):
                await asyncio.gather(export_later(1), asyncio.create_task(export_later(2)))
                await asyncio.to_thread(export)
        return events

    events = asyncio.run(test())
    assert {event.properties.get("number") for event in events} == {1, 2, None}


def test_decorated_functions_receive_the_events() -> None:
    """A parameter `events` is filled, and hidden from pytest; other tests are captured all the same."""

    @capture_events()
    def with_events(number: int, events: Events) -> CapturedEvent:
        track("e", {"number": number}, user_id="u")
        return events.one("e")

    @capture_events()
    async def async_with_events(events: Events) -> CapturedEvent:
        await asyncio.sleep(0)
        track("e", user_id="u")
        return events.one("e")

    @capture_events()
    def without() -> int:
        track("e", user_id="u")
        return stats().accepted

    calls = with_events, async_with_events
    assert calls[0](3).properties == {"number": 3}  # type: ignore[call-arg]
    assert asyncio.run(calls[1]()).user_id == "u"  # type: ignore[call-arg]
    assert (without(), stats().accepted) == (1, 0)
    assert list(inspect.signature(with_events).parameters) == ["number"]


def test_a_decorated_class_captures_each_test() -> None:
    """Every method `test*`, inherited ones included, has a capture of its own; other methods stay as they are."""
    seen: list[int] = []

    class Base(unittest.TestCase):
        def test_inherited(self) -> None:
            track("e", user_id="u")
            seen.append(stats().accepted)

    @capture_events()
    class Tests(Base):
        def test_own(self, events: Events) -> None:
            track("e", user_id="u")
            seen.append(len(events))

        @staticmethod
        def test_static(events: Events) -> None:
            track("e", user_id="u")
            seen.append(len(events))

        @classmethod
        def test_of_class(cls, events: Events) -> None:
            track("e", user_id="u")
            seen.append(len(events))

        def other(self, events: Events) -> None:
            """Not be decorated."""

    tests = unittest.defaultTestLoader.loadTestsFromTestCase(Tests)
    result = unittest.TextTestRunner(stream=io.StringIO()).run(tests)
    assert result.wasSuccessful()
    assert (result.testsRun, seen, stats().accepted) == (4, [1, 1, 1, 1], 0)
    assert "events" in inspect.signature(Tests.other).parameters


def test_examples_in_docstrings_run() -> None:
    """The examples do as they show."""
    result = doctest.testmod(ts_autotrack.testing)
    assert (result.failed, result.attempted > 15) == (0, True)
