"""The forms of the application's objects: as stored, without code of the application, within bounds."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import ipaddress
import itertools
import os
import time
import types
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import Any, ClassVar, NoReturn

import attrs
import numpy as np
import pydantic
import pytest
from starlette.requests import Request

from ts_autotrack._core.snapshot import snapshot


def form(value: object) -> Any:
    """Return the form of one value."""
    return snapshot({"value": value})["value"]


@dataclass
class Order:
    """A dataclass with all that is no stored field."""

    REGISTRY: ClassVar[dict[str, str]] = {"token": "not for anybody"}
    id: int
    seed: InitVar[int]
    total: float = 1.5
    kind: str = field(default="new", init=False)
    missing: int = field(init=False)

    def __post_init__(self, seed: int) -> None:
        """Take the pseudo-field."""

    @property
    def lazy(self) -> NoReturn:
        """Query a database."""
        raise AssertionError


@dataclass(slots=True)
class Slotted:
    """A dataclass without a dict."""

    a: int
    b: int = field(init=False)


@attrs.define
class Point:
    """An attrs class with slots."""

    x: int
    y: int = 2


def test_dataclasses_give_their_stored_fields() -> None:
    """Declared fields are sent; class variables, pseudo-fields, missing fields and properties are not."""
    assert form(Order(7, seed=1)) == {"id": 7, "total": 1.5, "kind": "new"}
    assert form(Slotted(1)) == {"a": 1}
    assert form(Point(1)) == {"x": 1, "y": 2}


class Manager:
    """The state that SQLAlchemy gives to each mapped object, seen from outside."""

    def __init__(self, *key: object) -> None:
        self.key = (Manager, key, None) if key else None


@dataclass
class User:
    """A mapped dataclass, as SQLAlchemy makes one, seen from outside."""

    email: str
    password_hash: str
    _sa_class_manager: ClassVar[object] = object()

    @property
    def account(self) -> NoReturn:
        """Query a database."""
        raise AssertionError


def mapped(*key: object) -> User:
    """Return a mapped object with a primary key, or a new one without."""
    user = User("a@b.c", "hash")
    user.__dict__["_sa_instance_state"] = Manager(*key)
    return user


def test_orm_objects_are_their_primary_key() -> None:
    """An object of an ORM is its key, alone or in a list; without a key it is a placeholder. No column is sent."""
    assert form([mapped(7), mapped(1, "b")]) == [7, [1, "b"]]
    assert form(mapped()) == "<not JSON: tests.core.test_forms.User without a primary key>"


SCOPE = {"type": "http", "path": "/", "query_string": b"", "headers": [(b"authorization", b"Bearer top-secret")]}


@pytest.mark.parametrize(
    "value",
    [
        Request(SCOPE),
        Request(SCOPE).headers,
        Request(SCOPE).query_params,
        SCOPE,
        {"wsgi.input": None, "HTTP_COOKIE": "secret"},
        os.environ,
        types.MappingProxyType(Request(SCOPE).headers),
    ],
)
def test_requests_and_other_mappings_are_placeholders(value: object) -> None:
    """A request, its headers and the environment bring credentials along: none of their values is sent."""
    assert form(value).startswith("<not JSON: ")
    assert form([value])[0].startswith("<not JSON: ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (range(3), [0, 1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.items(), [["a", 1]]),
        (collections.OrderedDict(a=1).keys(), ["a"]),
        (memoryview(b"\x00\xff"), "AP8="),
        (memoryview(b"abcd")[::2], "YWM="),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.ChainMap({"a": 1}, {"a": 2, "b": 3}), {"a": 1, "b": 3}),
        (collections.UserDict(a=1), {"a": 1}),
        (collections.defaultdict(int, a=1), {"a": 1}),
        (ipaddress.ip_address("::1"), "::1"),
        (np.datetime64("2024-01-02T03:04:05", "ns"), "2024-01-02T03:04:05"),
        (np.datetime64("2024-01-02T03:04:05", "s"), "2024-01-02T03:04:05"),
        (np.datetime64("2024-01-02"), "2024-01-02"),
        (np.timedelta64(90, "s"), 90.0),
        (np.timedelta64(90_000_000_000, "ns"), 90.0),
        (np.array(["2024-01-02", "NaT"], "M8[ns]"), ["2024-01-02T00:00:00", "<not JSON: NaT>"]),
        (np.datetime64("NaT", "s"), "<not JSON: NaT>"),
        (np.timedelta64("NaT", "s"), "<not JSON: NaT>"),
        (np.timedelta64(3, "M"), "<not JSON: numpy.timedelta64>"),
        (np.longdouble("1.5"), 1.5),
        (np.array([1.5], np.longdouble), [1.5]),
        (np.array(2), 2),
        ({(1, "a"): 1}, {"[1, 'a']": 1}),
        (range(10**12), [*range(10_000), "<not JSON: more than 10000 values>"]),
    ],
)
def test_forms(value: object, expected: object) -> None:
    """Views, ranges, buffers and times have the obvious form; times without a value are marked."""
    found = form(value)
    assert found == expected or found[-1] == expected[-1]  # type: ignore[index]


class Endless(dict[str, int]):
    """A dict that lies about its entries, without an end."""

    def __iter__(self) -> Any:
        return itertools.repeat("a")

    def keys(self) -> Any:
        """Return keys without an end."""
        return itertools.repeat("a")


def test_dicts_are_read_as_they_are_stored() -> None:
    """No method of a subclass of dict is called, alone and in a ChainMap."""
    assert form(Endless(b=1)) == {"b": 1}
    assert form(collections.ChainMap(Endless(b=1))) == {"b": 1}
    assert snapshot(Endless(b=1)) == {"b": 1}


class Card(pydantic.BaseModel):
    """A model with values of every kind of form."""

    model_config = pydantic.ConfigDict(extra="allow")
    price: Decimal = Decimal("1.50")
    hour: dt.timedelta = dt.timedelta(hours=1)
    blob: bytes = b"\xff"
    password: pydantic.SecretStr = pydantic.SecretStr("hunter2")
    hidden: str = pydantic.Field("hunter2", exclude=True)
    site: pydantic.HttpUrl = pydantic.HttpUrl("https://example.com/")
    dsn: pydantic.AnyUrl = pydantic.AnyUrl("postgres://me:hunter2@example.com/")
    _private: str = pydantic.PrivateAttr("hunter2")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def lazy(self) -> str:
        """Query a database."""
        raise AssertionError


class Masked(pydantic.BaseModel):
    """A model that masks a field by a serializer."""

    number: str = "4111-1111"
    digits: list[int] = [1]

    @pydantic.field_serializer("number")
    def mask(self, number: str) -> str:
        """Return the last digits."""
        return number[-4:]


class Numbers(pydantic.RootModel[list[int]]):
    """A model that is a list."""


def test_pydantic_models_take_our_forms() -> None:
    """A model's fields take the forms of their values; secrets, excluded and computed fields stay where they are."""
    found = form(Card(extra=1))  # type: ignore[call-arg]
    assert found == {
        "price": Decimal("1.50"),
        "hour": 3600.0,
        "blob": "/w==",
        "password": "<not JSON: pydantic.types.SecretStr>",
        "site": "https://example.com/",
        "dsn": "<not JSON: pydantic.networks.AnyUrl with credentials>",
        "extra": 1,
    }
    assert "hunter2" not in str(found)
    assert form(Masked()) == {"number": "1111", "digits": [1]}
    assert form(Masked(digits=list(range(100_000)))).endswith("Masked of too many values>")
    assert form(Numbers([1])) == [1]


class Thing:
    """An object without a form."""


Wide = dataclasses.make_dataclass("Wide", [(f"f{n}", int, 1) for n in range(400)])


COLLIDING: dict[Any, int] = {key: n for n in range(3_000) for key in (n, str(n), f"{n}'")}


def tree(depth: int) -> Any:
    """Return nested models, twice as many on each level."""
    return Card.model_construct(left=tree(depth - 1), right=tree(depth - 1)) if depth else None


@pytest.mark.parametrize(
    "value",
    [
        {Thing(): n for n in range(10_000)},
        {float("nan"): n for n in range(10_000)},
        {(n, *range(9_900)): n for n in range(20)},
        {(n, n): n for n in range(10_000)},
        COLLIDING,
        [Thing() for _ in range(10_000)],
        [Masked.model_construct(digits=list(range(400))) for _ in range(200)],
        [Wide() for _ in range(1_000)],
        [range(10**9)] * 1_000,
        [np.arange(9_000)] * 1_000,
        [b"x" * 100_000] * 1_000,
        [2**4_000] * 10_000,
        [Decimal("1" * 100_000)] * 1_000,
        [type("Text", (str,), {})("x" * 900_000)] * 100,
        tree(12),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_holds_up_the_caller(value: object) -> None:
    """The copy of any value takes about a millisecond of the caller's time; the test allows for slow machines."""
    taken = []
    for _ in range(5):
        began = time.thread_time()
        form(value)
        taken.append(time.thread_time() - began)
    assert min(taken) < 0.01


@pytest.mark.parametrize(
    "request_values",
    [
        {"wsgi.input": object(), "HTTP_AUTHORIZATION": "Bearer secret"},
        {"type": "http", "asgi": {"version": "3.0"}, "headers": [(b"authorization", b"Bearer secret")]},
        Request({"type": "http", "asgi": {"version": "3.0"}, "headers": [(b"authorization", b"Bearer secret")]}),
    ],
    ids=["WSGI", "ASGI", "Starlette"],
)
def test_request_in_place_of_properties_is_left_out(request_values: Any) -> None:
    """A request given as the properties themselves sends no header."""
    assert snapshot(request_values) == {"...": "<not JSON: request>"}
