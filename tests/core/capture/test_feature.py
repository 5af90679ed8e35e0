"""Parameters of track_feature: names, properties, captured arguments, outcomes, and errors at decoration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.core.conftest import arrived
from tests.core.subjects import Shop, module_level
from ts_autotrack import add_properties, stats, suppress, track_feature, user_context
from ts_autotrack.typing import FinishedCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

pytestmark = pytest.mark.usefixtures("acting")


def test_function_makes_one_event_with_name_and_action(inspector: Inspector) -> None:
    """A successful call sends `feature_used` with the feature's name, and the function's name as action."""
    assert module_level(7) == 7
    assert arrived(inspector) == [{"feature_name": "module_level", "action": "module_level", "value": 7}]
    item = inspector.items()[0]
    assert (item["event_name"], item["user_id"], item["context"]["group_id"]) == ("feature_used", "user_1", "account_1")


def test_bare_decorator_takes_the_name_of_the_function(inspector: Inspector) -> None:
    """`@track_feature` without arguments names the feature after the function."""

    @track_feature
    def open_dashboard() -> None:
        """Do nothing."""

    open_dashboard()
    assert arrived(inspector) == [{"feature_name": "open_dashboard", "action": "open_dashboard"}]


def test_every_parameter_reaches_the_event(inspector: Inspector) -> None:
    """Each parameter of the decorator reaches its place in the item."""

    @track_feature(
        "export",
        event_name="custom",
        feature_type="core",
        action="clicked",
        interface="api",
        properties={"plan": "pro"},
        capture="rows",
        user_id="service",
        group_id=17,
    )
    def export(rows: list[int]) -> None:
        rows.append(0)

    export([1, 2])
    assert arrived(inspector) == [
        {
            "feature_name": "export",
            "feature_type": "core",
            "action": "clicked",
            "interface": "api",
            "plan": "pro",
            "rows": [1, 2],
        }
    ]
    item = inspector.items()[0]
    assert (item["event_name"], item["user_id"], item["context"]["group_id"]) == ("custom", "service", "17")


@pytest.mark.parametrize(("on", "expected"), [("success", [None]), ("error", [None]), ("always", ["success", "error"])])
def test_on_decides_which_outcomes_count(inspector: Inspector, on: Any, expected: list[str | None]) -> None:
    """`on` picks successes, failures or both; only "always" adds the outcome to the event."""

    @track_feature("div", on=on, capture=["by"])
    def divide(by: int) -> float:
        return 1 / by

    @track_feature("async_div", on=on)
    async def async_divide(by: int) -> float:
        return 1 / by

    for by in (1, 0):
        for call in (divide, lambda by: asyncio.run(async_divide(by))):
            try:
                call(by)
            except ZeroDivisionError:  # noqa: PERF203
                assert by == 0
    events = arrived(inspector)
    assert [event.get("outcome") for event in events if event["feature_name"] == "div"] == expected
    assert [event.get("outcome") for event in events if event["feature_name"] == "async_div"] == expected
    assert next(event["by"] for event in events if "by" in event) == (0 if on == "error" else 1)


def test_properties_callable_sees_the_finished_call(inspector: Inspector) -> None:
    """A callable makes properties of arguments, result and error; an event goes without them if the callable raises."""
    seen: list[FinishedCall] = []

    def describe(call: FinishedCall) -> dict[str, object]:
        seen.append(call)
        return {"rows": len(call.result)}

    @track_feature("export", properties=describe)
    def export(size: int) -> list[int]:
        return [0] * size

    @track_feature("async_export", properties=lambda call: {"rows": call.kwargs["size"]})
    async def async_export(*, size: int) -> None:
        await asyncio.sleep(size - size)

    @track_feature("failing", on="error", properties=describe)
    def failing() -> None:
        raise LookupError

    export(3)
    asyncio.run(async_export(size=4))
    with pytest.raises(LookupError):
        failing()
    assert [event.get("rows") for event in arrived(inspector)] == [3, 4, None]
    assert seen[0] == FinishedCall((3,), {}, [0, 0, 0], None)
    assert isinstance(seen[1].error, LookupError)


def test_capture_takes_defaults_keywords_and_leaves_the_rest(inspector: Inspector) -> None:
    """Captured arguments may be positional, keyword or default; other arguments are not copied."""

    @track_feature("f", capture=["a", "b", "extra"])
    def function(a: int, hidden: str, b: str = "default", **more: object) -> None:
        """Do nothing."""

    function(1, "hidden")
    function(a=2, hidden="hidden", b="given", extra=None)
    assert [{k: v for k, v in p.items() if k not in ("feature_name", "action")} for p in arrived(inspector)] == [
        {"a": 1, "b": "default"},
        {"a": 2, "b": "given", "extra": None},
    ]


def test_suppressed_calls_are_counted(inspector: Inspector) -> None:
    """Inside `suppress` no event is sent, and each event is counted."""

    @suppress()
    def silent() -> None:
        module_level()

    silent()
    with suppress(), user_context("user_2", group_id="g"), track_feature("block"):
        module_level()
    module_level()
    assert len(arrived(inspector)) == 1
    assert stats().dropped == {"suppressed": 3}
    assert stats().accepted == 4


def test_extras_are_a_snapshot(inspector: Inspector) -> None:
    """Changes to a list after the call do not change the event."""
    rows = [1]

    @track_feature("f", capture=["rows"], properties=lambda call: {"nested": {"rows": call.args[0]}})
    def function(rows: list[int]) -> None:
        add_properties(added=rows)

    function(rows)
    rows.append(2)
    event = arrived(inspector)[0]
    assert (event["rows"], event["nested"], event["added"]) == ([1], {"rows": [1]}, [1])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: track_feature("f")(Shop), TypeError, "cannot decorate the class Shop.*__init__"),
        (lambda: track_feature(Shop), TypeError, "cannot decorate the class Shop"),
        (lambda: track_feature("f")(property(len)), TypeError, "below @property"),
        (lambda: track_feature(7), TypeError, "int object: it is not callable"),  # type: ignore[call-overload]
        (lambda: track_feature("f", capture=["nope"])(len), TypeError, "len has no argument 'nope'"),
        (lambda: track_feature("f", capture=[1]), TypeError, "names of arguments"),  # type: ignore[list-item]
        (lambda: track_feature(" "), TypeError, "name=' '"),
        (lambda: track_feature("f", event_name=""), TypeError, "event_name"),
        (lambda: track_feature("f", feature_type="cor"), ValueError, "core, sticky, support"),  # type: ignore[call-overload]
        (lambda: track_feature("f", interface="web"), ValueError, "api, cli, agent"),  # type: ignore[call-overload]
        (lambda: track_feature("f", on="never"), ValueError, "success, error, always"),  # type: ignore[call-overload]
        (lambda: track_feature("f", properties=3), TypeError, "a dict or a callable"),  # type: ignore[call-overload]
        (lambda: track_feature().__enter__(), TypeError, "needs the feature's name"),
    ],
)
def test_misuse_raises_at_decoration(make: Callable[[], object], error: type[Exception], message: str) -> None:
    """A wrong argument raises at once, and the message names the remedy."""
    with pytest.raises(error, match=message):
        make()
