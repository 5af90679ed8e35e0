"""Values that are ids of the acting user and of the account, and values that mean nobody."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import numpy as np
import pydantic
import pytest
import wrapt
from django.utils.functional import SimpleLazyObject, lazy

from tests.core.identity.conftest import users
from tests.core.identity.subjects import ObjectId, Record, Session, get_user, local, namespace
from ts_autotrack import group, stats, track, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector


class TenantId(ObjectId):
    """An id whose text form is declared by its base class."""


@dataclasses.dataclass(frozen=True)
class UserKey:
    """A dataclass that is an id."""

    realm: str
    number: int

    def __str__(self) -> str:
        """Return the id."""
        return f"{self.realm}-{self.number}"


class ModelKey(pydantic.BaseModel):
    """A model that is an id."""

    number: int

    def __str__(self) -> str:
        """Return the id."""
        return f"m-{self.number}"


class TupleKey(NamedTuple):
    """A named tuple that is an id."""

    number: int

    def __str__(self) -> str:
        """Return the id."""
        return f"t-{self.number}"


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


class Service(str, enum.Enum):
    """Ids of services, as texts."""

    BILLING = "svc-billing"


class Robot(enum.Enum):
    """Ids of robots, as an enum's values."""

    MAIL = "robot-mail"


class Job(enum.Enum):
    """Ids of jobs, with a text form."""

    NIGHTLY = 1

    def __str__(self) -> str:
        """Return the id."""
        return "job-nightly"


class Level(enum.IntEnum):
    """Integers."""

    LOW = 1


class Number(int):
    """An integer with another text form."""

    def __str__(self) -> str:
        """Return no digits."""
        return "number"


uuid = UUID(int=5)

IDS: list[tuple[object, str]] = [
    ("  user_1 ", "user_1"),
    (Text("text"), "text"),
    (Service.BILLING, "svc-billing"),
    (Robot.MAIL, "robot-mail"),
    (Job.NIGHTLY, "job-nightly"),
    (collections.UserString("user_text"), "user_text"),
    (np.str_("numpy"), "numpy"),
    (0, "0"),
    (-5, "-5"),
    (2**200, str(2**200)),
    (Level.LOW, "1"),
    (Number(7), "7"),
    (np.int64(9), "9"),
    (np.uint8(9), "9"),
    (Decimal(12), "12"),
    (Decimal("12.00"), "12"),
    (Decimal("1E+3"), "1000"),
    (uuid, str(uuid)),
    (type("Key", (UUID,), {})(int=7), str(UUID(int=7))),
    (ObjectId("507f1f77"), "507f1f77"),
    (ObjectId(Text(" text ")), "text"),
    (TenantId("tenant"), "tenant"),
    (UserKey("eu", 5), "eu-5"),
    (ModelKey(number=5), "m-5"),
    (TupleKey(5), "t-5"),
    (local("proxied"), "proxied"),
    (local(42), "42"),
    (lazy(lambda: "lazy text", str)(), "lazy text"),
    (SimpleLazyObject(lambda: "lazy"), "lazy"),
    (SimpleLazyObject(lambda: 43), "43"),
    (SimpleLazyObject(lambda: local(uuid)), str(uuid)),
    (wrapt.ObjectProxy("wrapped"), "wrapped"),
]


@pytest.mark.parametrize(("value", "text"), IDS, ids=[f"{type(value).__name__}: {text[:20]}" for value, text in IDS])
def test_ids(inspector: Inspector, caplog: pytest.LogCaptureFixture, value: object, text: str) -> None:
    """Texts, integers, UUIDs, and objects that declare a text form are ids, for the user as for the account."""
    with user_context(value, group_id=value):
        track("e")
    track("e", user_id=value, group_id=value)
    with track_feature("block", event_name="e", user_id=value, group_id=value):
        pass
    assert users(inspector) == [("e", text, text)] * 3
    assert not caplog.records


NOBODY: list[object] = [
    None,
    "",
    " \n",
    Text(" "),
    ObjectId(""),
    local(None),
    lazy(lambda: "", str)(),
    Session(is_authenticated=False),
    local(Session(is_authenticated=False)),
    SimpleLazyObject(lambda: Session(is_authenticated=False)),
    namespace(is_anonymous=True),
    namespace(is_anonymous=property(lambda _: True)),
    namespace(is_anonymous=lambda _: True),
    namespace(is_authenticated=lambda _: False),
    namespace(is_authenticated=functools.cached_property(lambda _: False)),
    dataclasses.make_dataclass("Guest", [("is_authenticated", bool)])(is_authenticated=False),
]


@pytest.mark.parametrize("value", NOBODY[1:], ids=lambda value: type(value).__name__)
def test_nobody(inspector: Inspector, caplog: pytest.LogCaptureFixture, value: object) -> None:
    """An empty text and an anonymous user mean nobody, not the user around, and are no reason for a warning."""
    with user_context("around", group_id="g"):
        with user_context(value):
            track("e")
        with track_feature("block", user_id=value):
            pass
    assert users(inspector) == []
    assert stats().dropped == {"unattributed": 2}
    assert not [message for message in caplog.messages if "is no id" in message]


@pytest.mark.parametrize("name", ["user_id", "group_id"])
def test_a_bad_id_at_decoration_raises(name: str) -> None:
    """A function cannot be decorated with a value that is no id; the message names argument, value and remedy."""
    options: dict[str, Any] = {name: get_user}
    with pytest.raises(TypeError, match=rf"track_feature\({name}=...\): a function is no id \(got get_user\)"):
        track_feature("f", **options)(get_user)


def test_a_bad_id_of_a_block_is_nobody(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A block raises no error for data of the moment: its event goes to nobody, never to the user around."""
    with user_context("around", group_id="g"):
        for _ in range(2):
            with track_feature("block", user_id=Record()):
                pass
        with track_feature("block", group_id=Record()):
            pass
    assert users(inspector) == [("feature_used", "around", None)]
    assert stats().dropped == {"unattributed": 2}
    assert caplog.text.count("track_feature(user_id=...): a whole record is no id") == 1


def test_an_empty_id_at_decoration_is_nobody(inspector: Inspector) -> None:
    """A service account that is not configured does not turn into the acting user; None means the acting user."""

    def tracked(user_id: object) -> Callable[[], str]:
        return track_feature("job", user_id=user_id)(functools.partial(get_user))

    with user_context("around"):
        tracked("")()
        tracked(None)()
    assert users(inspector) == [("feature_used", "around", None)]
    assert stats().dropped == {"unattributed": 1}


def test_a_bad_id_of_a_group_is_invalid(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """`group` needs an account's id: without one the event is invalid, and the warning says why."""
    with user_context("u"):
        group(Record(), {"plan": "pro"})
    assert users(inspector) == []
    assert stats().dropped == {"invalid": 1}
    assert "group(): a whole record is no id" in caplog.text
