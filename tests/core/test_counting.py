"""The memory budget counts the memory that waits, once, and gives it back."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, context

import ts_autotrack as ts
from ts_autotrack._core.capture.block import FeatureUse
from ts_autotrack._core.capture.buffer import buffer
from ts_autotrack._core.counters import memory_budget
from ts_autotrack._core.identity.scope import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Inspector

LONG = "x" * 10_000


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let events wait: no worker takes them, and a refused event is forgotten."""

    def keep_unless_full(record: Any) -> None:
        if not buffer.full:
            buffer.records.append(record)

    monkeypatch.setattr(buffer, "on_slow_path", keep_unless_full)
    monkeypatch.setattr(buffer, "append_limit", -1)
    yield
    buffer.records.clear()
    ts.clear_user()


@pytest.mark.usefixtures("waiting")
def test_replaced_values_are_given_back() -> None:
    """A property set over and over counts once, in a block, in a call and in a binding."""
    with ts.user_context("u", group_id="g"), ts.track_feature("block") as use:
        for n in range(100):
            use.set(row=LONG + str(n), other=n)
        assert memory_budget.held < 12_000
    buffer.records.clear()
    assert memory_budget.held == 0
    for n in range(100):
        ts.bind_user("u", note=LONG + str(n))
        ts.bind_user(step=n)
    ts.track("e")
    assert 10_000 < memory_budget.held < 12_000


@pytest.mark.usefixtures("waiting")
def test_shared_values_count_once() -> None:
    """A value of an outer block counts once, however many blocks inside have waiting events."""
    with ts.user_context("outer", group_id="g", bio=LONG):
        assert memory_budget.held == 0  # no event waits
        for n in range(50):
            with ts.user_context("outer", plan=f"pro{n}"):
                ts.track("e")
                ts.track("e", {"n": [n]})
    assert 10_000 < memory_budget.held < 15_000
    buffer.records.clear()
    assert memory_budget.held == 0


@pytest.mark.usefixtures("waiting")
def test_a_scope_that_stays_current_does_not_refuse_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A binding larger than the whole budget costs its own events, and no event of others."""
    monkeypatch.setattr(memory_budget, "limit", 5_000)
    ts.bind_user("u", bio=LONG)
    ts.track("too large")
    assert (len(buffer.records), memory_budget.held) == (0, 0)
    with ts.user_context("other", bio="short"):
        ts.track("e")
    ts.clear_user()
    ts.track("e", user_id="other")
    assert len(buffer.records) == 2


texts = st.text("x\u00e9\U0001f600", max_size=8).map(lambda text: text * 200)
values = st.recursive(
    texts | st.integers() | st.decimals(allow_nan=False) | st.floats(allow_nan=False) | st.binary(max_size=900),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
properties = st.dictionaries(st.text("abc", min_size=1, max_size=2), values, max_size=5)


def nest(user_id: str, outer: dict[str, Any], inner: dict[str, Any]) -> None:
    """Track in nested blocks."""
    with ts.user_context(user_id, group_id=user_id, **outer), ts.user_context(**inner):
        ts.track("e", outer)
        with ts.track_feature("f", properties=inner) as use:
            use.set(**outer)


def bind(user_id: str, outer: dict[str, Any], inner: dict[str, Any]) -> None:
    """Track in bindings."""
    ts.bind_user(user_id, **outer)
    ts.track(user_id or "e", inner, context=outer)
    ts.bind_user(**inner)
    ts.group(user_id, outer)


ACTIONS: list[Callable[[str, dict[str, Any], dict[str, Any]], None]] = [nest, bind]


@pytest.mark.usefixtures("waiting")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), texts, properties, properties), max_size=20))
def test_the_count_bounds_the_memory(actions: list[tuple[Any, str, dict[str, Any], dict[str, Any]]]) -> None:
    """For any mix of events the memory that waits is at most twice the count, and some bytes for each event."""
    ts.clear_user()
    buffer.records.clear()
    gc.collect()
    assert memory_budget.held == 0
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for action, user_id, outer, inner in actions:
        action(user_id, outer, inner)
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert memory <= 2 * memory_budget.held + 6_000 * len(buffer.records) + 20_000
    ts.clear_user()
    buffer.records.clear()
    assert memory_budget.held == 0


class Request:
    """An object for weak references."""


@pytest.mark.usefixtures("inspector")
def test_nothing_of_an_ended_request_is_kept(inspector: Inspector) -> None:
    """After its end, a block keeps no properties, and the memo for baggage keeps no OpenTelemetry context."""
    del inspector
    request = Request()
    alive = ref(request)
    token = context.attach(context.set_value("request", request, baggage.set_baggage("user.id", "u")))
    ts.track("e")
    assert current().with_baggage is not None
    context.detach(token)
    del request, token
    with ts.track_feature("outer"):
        pass
    gc.collect()
    assert alive() is None
    assert [use for use in gc.get_objects() if type(use) is FeatureUse] == []
