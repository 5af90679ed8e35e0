"""No value passed by an application raises, or costs another event its delivery."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import json
import math
import threading
from collections import OrderedDict, deque
from decimal import Decimal
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock
from uuid import UUID

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ts_autotrack import flush, stats, track, track_feature, user_context
from ts_autotrack._core.capture.record import EventTemplate
from ts_autotrack._core.counters import Counters
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.identity.scope import Scope
from ts_autotrack._core.snapshot import MAX_NODES, placeholders, snapshot

if TYPE_CHECKING:
    from tests.conftest import Inspector


class Color(enum.Enum):
    """A plain enumeration."""

    RED = "red"


class Level(enum.IntEnum):
    """An integer enumeration."""

    HIGH = 3


class Text(str):
    """A text of its own class."""

    __slots__ = ()


@dataclasses.dataclass
class Point:
    """A dataclass with a value unknown to JSON."""

    x: int
    when: dt.date


class Model(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    when: dt.datetime


class FakeAttrs:
    """A class as made by attrs, seen from outside."""

    __attrs_attrs__ = (type("A", (), {"name": "a"}),)
    a = 1


class Struct:
    """A class as made by msgspec, seen from outside."""

    __struct_fields__ = ("a",)
    a = 2


class Hostile:
    """Raises in every conversion to text."""

    def __repr__(self) -> str:
        raise LookupError

    __str__ = __repr__


class HostileModel:
    """Raises on access to its content."""

    def model_dump(self, mode: str) -> dict[str, object]:
        """Fail."""
        raise LookupError(mode)


cyclic: list[Any] = [1]
cyclic.append(cyclic)
deep: list[Any] = []
for _ in range(40):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (True, True),
        (None, None),
        (1.5, 1.5),
        (2**64 - 1, 2**64 - 1),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (Text("own"), "own"),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (dt.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone.utc), "2024-01-02T03:04:05.000006+00:00"),
        (dt.date(2024, 1, 2), "2024-01-02"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(minutes=1.5), 90.0),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("10.50"), 10.5),
        (Decimal("1E+500"), "1E+500"),
        (PurePosixPath("/a/b"), "/a/b"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"ab"), "YWI="),
        ((1, "a"), [1, "a"]),
        ({1}, [1]),
        (frozenset(["a"]), ["a"]),
        (deque([1]), [1]),
        (OrderedDict(a=1), {"a": 1}),
        (Point(1, dt.date(2024, 1, 2)), {"x": 1, "when": "2024-01-02"}),
        (
            Model(name="n", when=dt.datetime(2024, 1, 2, tzinfo=dt.timezone.utc)),
            {"name": "n", "when": "2024-01-02T00:00:00+00:00"},
        ),
        (FakeAttrs(), {"a": 1}),
        (Struct(), {"a": 2}),
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.str_("s"), "s"),
        ({1: "a", 2.5: "b", None: "c", False: "d"}, {"1": "a", "2.5": "b", "null": "c", "false": "d"}),
        ({UUID(int=1): 1, Color.RED: 2}, {"00000000-0000-0000-0000-000000000001": 1, "red": 2}),
        ({1: "a", "1": "b"}, {"1": "a", "1'": "b"}),
    ],
)
def test_obvious_forms(inspector: Inspector, value: Any, expected: Any) -> None:
    """A value with an obvious JSON form arrives in this form, uncounted, at the top and nested."""
    track("e", {"value": value, "nested": {"in": [value]}}, user_id="u")
    assert flush(10)
    assert inspector.items()[0]["properties"] == {"value": expected, "nested": {"in": [expected]}}
    assert stats().replaced == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "<not JSON: float nan>"),
        (-math.inf, "<not JSON: float -inf>"),
        (np.float64("nan"), "<not JSON: float nan>"),
        (Decimal("sNaN"), "<not JSON: Decimal sNaN>"),
        (2**5000, "<not JSON: int of more than 4096 bits>"),
        (object(), "<not JSON: object>"),
        (Hostile(), "<not JSON: tests.core.test_snapshot.Hostile>"),
        (HostileModel(), "<not JSON: tests.core.test_snapshot.HostileModel>"),
        (bytes(1_000_001), "<not JSON: binary of more than 1000000 bytes>"),
        (np.zeros(MAX_NODES + 1), "<not JSON: numpy.ndarray>"),
        (np.random.default_rng(1), "<not JSON: numpy.random._generator.Generator>"),
        (cyclic, [1, "<not JSON: cycle>"]),
        ([1, Hostile()], [1, "<not JSON: tests.core.test_snapshot.Hostile>"]),
        ("a\ud800b", "a\ufffdb"),
    ],
)
def test_placeholders_are_marked_and_counted(inspector: Inspector, value: Any, expected: Any) -> None:
    """A value without a JSON form becomes a marked placeholder; the event, and its neighbour, arrive all the same."""
    track("e", {"value": value}, user_id="u")
    track("beside", user_id="u")
    assert flush(10)
    assert [item["properties"] for item in inspector.items()] == [{"value": expected}, {}]
    assert stats().replaced == 1


def test_replaced_values_are_explained_once(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """The first replaced value of a kind leads to a warning with the name of the kind."""
    for _ in range(3):
        track("e", {"value": object()}, user_id="u", group_id="g")
    assert flush(10)
    assert len(inspector.items()) == 3
    assert [r.getMessage() for r in caplog.records] == [
        (
            "ts_autotrack: a value of kind object has no JSON form; the event carries the text '<not JSON: object>' "
            "instead. Pass a string, number, list or dict."
        )
    ]


def test_depth_and_size_are_bounded(inspector: Inspector) -> None:
    """A value too deep or too large is cut at the bound, with a mark."""
    track("deep", {"value": deep}, user_id="u", group_id="g")
    track("wide", {"value": list(range(MAX_NODES * 2)), "map": {str(n): n for n in range(MAX_NODES * 2)}}, user_id="u")
    assert flush(10)
    nested, wide = (item["properties"] for item in inspector.items())
    assert "<not JSON: nested deeper than 32>" in json.dumps(nested)
    assert wide["value"][-1] == f"<not JSON: more than {MAX_NODES} values>"
    assert len(wide["value"]) <= MAX_NODES + 1
    assert wide["map"]["..."] == f"<not JSON: more than {MAX_NODES} values>"
    assert stats().replaced == 3


class Money(Decimal):
    """A number whose text is no number."""

    def __str__(self) -> str:
        return "$" + Decimal.__str__(self)


class Endless(dict[str, int]):
    """A dict without an end, and with a false length."""

    def __len__(self) -> int:
        return 1

    def items(self) -> Any:
        """Return items without an end."""
        return ((str(n), n) for n in itertools.count())


class NamelessMeta(type):
    """Raises on access to the module of a class."""

    @property
    def __module__(cls) -> str:  # type: ignore[override]
        raise LookupError


class Nameless(metaclass=NamelessMeta):
    """A class without a name."""


def test_values_that_lie_about_themselves(inspector: Inspector) -> None:
    """Classes with false types, false texts or endless contents neither break the JSON nor hold up the caller."""
    with user_context("u", group_id="g", nameless=Nameless()), track_feature("block") as use:
        use.set(price=Money("12.00"), mock=MagicMock(spec=bool), nameless=Nameless())
    track("endless", Endless(real=1), user_id="u")
    track("wide", {str(n): list(range(1_000)) for n in range(100)}, user_id="u")
    assert flush(10)
    block, endless, wide = (item["properties"] for item in inspector.items())
    assert block["price"] == 12.0
    assert block["mock"] == "<not JSON: unittest.mock.MagicMock>"
    assert block["nameless"] == "<not JSON: object of a class without a name: LookupError>"
    assert endless == {"real": 1}
    assert sum(map(len, wide.values())) < MAX_NODES + 200


def test_a_context_that_is_no_dict_is_ignored(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong `context=` is ignored, and the event is sent."""
    with user_context("u", group_id="g", context=7):  # type: ignore[arg-type]
        track("e")
    assert flush(10)
    assert len(inspector.items()) == 1
    assert "a int is no dict" in caplog.text


def test_keys_of_any_type_at_the_top(inspector: Inspector) -> None:
    """Properties themselves may have keys unknown to JSON."""
    track("e", {1: "a", UUID(int=1): "b"}, user_id="u")  # type: ignore[dict-item]
    assert flush(10)
    assert inspector.items()[0]["properties"] == {"1": "a", "00000000-0000-0000-0000-000000000001": "b"}


def test_mutation_by_another_thread_during_the_snapshot_is_harmless() -> None:
    """A dict changed by another thread during the copy never raises into the application."""
    shared: dict[str, object] = {str(n): [n] for n in range(200)}
    stop = threading.Event()

    def mutate() -> None:
        n = 0
        while not stop.is_set():
            shared[str(n % 400)] = [n]
            shared.pop(str((n + 200) % 400), None)
            n += 1

    thread = threading.Thread(target=mutate)
    thread.start()
    try:
        for _ in range(300):
            assert isinstance(snapshot({"shared": shared})["shared"], dict | str)
    finally:
        stop.set()
        thread.join()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.decimals()
    | st.datetimes() | st.timedeltas() | st.uuids() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner)
    | st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters()), anything, max_size=5))
def test_any_properties_become_json(properties: dict[str, Any]) -> None:
    """For any properties, a strict parser reads the item's JSON, and no property is missing."""
    before = placeholders.read()
    record = (EventTemplate("/track", "e", {}, "here"), Scope("u", "g"), 1, snapshot(properties))
    ((_, body, _),), _ = Encoder(Counters()).encode([record], 0)

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    decoded = json.loads(body.decode(), parse_constant=no_constant)
    assert len(decoded["properties"]) == len(properties)
    assert placeholders.read() >= before
