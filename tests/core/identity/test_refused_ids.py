"""Values that are no ids, and their warnings."""

from __future__ import annotations

import array
import collections
import datetime as dt
import enum
import functools
import io
import json
import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import MagicMock, Mock, create_autospec

import attrs
import numpy as np
import pydantic
import pytest
import sqlalchemy as sa
import wrapt
from django.db.models import CharField, F, Value
from django.utils.functional import SimpleLazyObject
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from werkzeug.local import LocalProxy

from tests.conftest import run_python
from tests.core.identity.conftest import users
from tests.core.identity.subjects import ObjectId, Record, get_user, local, namespace
from ts_autotrack import bind_user, identify, stats, track, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


async def current_user() -> str:
    """Return a user."""
    return "user"


def stream() -> Iterator[str]:
    """Yield a user."""
    yield "user"


class Base(DeclarativeBase):
    """The mapped classes."""


class Person(Base):
    """A mapped class with a text form, which is the person's name."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    is_authenticated: Mapped[bool] = mapped_column(default=False)

    def __str__(self) -> str:
        """Return a name, which is no id."""
        return "Jane Doe"


class Model(pydantic.BaseModel):
    """A whole record."""

    id: int = 5
    email: str = "jane@x"


class Point(NamedTuple):
    """A whole record."""

    id: int = 5
    email: str = "jane@x"


Attrs = attrs.make_class("Attrs", {"email": attrs.field(default="jane@x")})


class Arrow:
    """A moment, as a library's class with a text form."""

    def isoformat(self) -> str:
        """Return the moment."""
        return "2026-01-01"

    __str__ = isoformat


class Described(list[str]):
    """A list with a text form."""

    def __str__(self) -> str:
        """Return no id."""
        return "jane@x"


class Trouble(Exception):  # noqa: N818 - an error that an application passes by mistake
    """An exception with a text form."""

    def __str__(self) -> str:
        """Return no id."""
        return "jane@x"


class Action:
    """A callable with a text form."""

    def __call__(self) -> str:
        """Return a user."""
        return "user"

    def __str__(self) -> str:
        """Return no id."""
        return "jane@x"


class Plain:
    """An object without a text form, but for Python's."""


class Shown(Plain):
    """An object with a form for programmers."""

    def __repr__(self) -> str:
        """Return no id."""
        return "jane@x"


def fail() -> str:
    """Raise an error whose message is personal."""
    message = "jane@x"
    raise LookupError(message)


def recurse() -> str:
    """Never end."""
    return str(ObjectId(recurse))


REFUSED: list[tuple[Any, str]] = [
    (1.0, "a float is no id (got float); it may be NaN or have lost digits: pass text or an integer"),
    (float("nan"), "a float"),
    (np.float64("nan"), "a numpy value other than an integer"),
    (np.float32(5), "a numpy value"),
    (np.bool_(True), "a numpy value"),
    (np.datetime64("NaT", "s"), "a numpy value"),
    (np.timedelta64(5, "ns"), "a duration"),
    (np.array(5), "a collection"),
    (Decimal("NaN"), "a Decimal that is not finite"),
    (Decimal("sNaN"), "a Decimal that is not finite"),
    (Decimal("1.5"), "a Decimal that is not whole"),
    (Decimal("1E+999999"), "a Decimal that is not finite or very large"),
    (Decimal("1E-999999"), "a Decimal that is not whole"),
    (Fraction(5), "an object without a text form of its own"),
    (5j, "an object without a text form"),
    (10**5000, "the text of a int could not be read: ValueError"),
    (True, "a truth value"),
    (b"jane@x", "a binary value is no id (got bytes); decode it"),
    (bytearray(b"jane@x"), "a binary value"),
    (memoryview(b"jane@x"), "a binary value"),
    ({"email": "jane@x"}, "a collection or stream of values is no id (got dict); pass the id itself"),
    ({}, "a collection"),
    (["jane@x"], "a collection"),
    (("jane@x",), "a collection"),
    ({"jane@x"}, "a collection"),
    (Described(["jane@x"]), "a collection"),
    (collections.deque(["jane@x"]), "a collection"),
    (array.array("i", [5]), "a collection"),
    (range(5), "a collection"),
    (stream(), "a collection or stream of values is no id (got stream)"),
    (io.StringIO("jane@x"), "a collection"),
    (get_user, "a function is no id (got get_user); did you forget to call it?"),
    ([].append, "a function is no id (got list.append)"),
    (ObjectId("jane@x").__str__, "a function is no id (got ObjectId.__str__)"),
    (lambda: "user", "a function"),
    (functools.partial(get_user), "a callable is no id (got functools.partial); did you forget to call it?"),
    (Action(), "a callable"),
    (Record, "a class is no id (got Record); pass its id"),
    (track_feature("f")(functools.partial(get_user)), "a callable"),
    (Mock().id, "a mock is no id (got unittest.mock.Mock)"),
    (MagicMock(__str__=lambda _: "jane@x"), "a mock"),
    (Mock(spec=str), "a mock"),
    (create_autospec(Record, instance=True), "a mock"),
    (Trouble(), "an exception"),
    (KeyError("jane@x"), "an exception"),
    (re, "an object without a text form"),
    (re.match("j", "jane@x"), "a collection"),
    (dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc), "a date or time"),
    (dt.date(2026, 1, 1), "a date or time"),
    (dt.timedelta(5), "a date or time"),
    (Arrow(), "a date or time"),
    (Record(), "a whole record is no id (got tests.core.identity.subjects.Record); pass its id"),
    (Model(), "a whole record"),
    (Attrs(), "a whole record"),
    (Point(), "a whole record"),
    (pydantic.SecretStr("jane@x"), "a secret"),
    (enum.Enum("Role", "ADMIN").ADMIN, "a member of an enum"),  # type: ignore[attr-defined]
    (Plain(), "an object without a text form of its own is no id (got tests.core.identity.test_refused_ids.Plain)"),
    (Shown(), "an object without a text form"),
    (object(), "an object without a text form"),
    (Person(id=5), "a record of a database is no id (got tests.core.identity.test_refused_ids.Person); pass its id"),
    (Person.id, "an object of the database library"),
    (Person.__table__.c.id, "an object of the database library"),
    (Person.id == 5, "an object of the database library"),
    (aliased(Person).id, "an object of the database library"),
    (sa.func.max(Person.id), "an object of the database library"),
    (sa.null(), "an object of the database library"),
    (F("id"), "an object of the database library"),
    (Value("jane@x"), "an object of the database library"),
    (CharField(), "an object of the database library"),
    (local(get_user), "a function"),
    (SimpleLazyObject(Record), "a whole record"),
    (LocalProxy(fail), "the text of a werkzeug.local.LocalProxy could not be read: LookupError"),
    (wrapt.ObjectProxy(Record()), "a whole record"),
    (ObjectId(fail), "the text of a tests.core.identity.subjects.ObjectId could not be read: LookupError"),
    (ObjectId(5), "the text of a tests.core.identity.subjects.ObjectId could not be read: TypeError"),
    (ObjectId(recurse), "the text of a tests.core.identity.subjects.ObjectId could not be read: RecursionError"),
    (namespace(__str__=object.__repr__), "an object whose text is its memory address"),
    (namespace(is_authenticated=property(lambda _: fail())), "could not be read: LookupError"),
]


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=[f"{type(value).__name__}: {w}" for value, w in REFUSED])
def test_refused(inspector: Inspector, caplog: pytest.LogCaptureFixture, value: object, words: str) -> None:
    """A value that is no id means nobody, with one warning for its class, which never shows the value."""
    with user_context("around", group_id="g"):
        for _ in range(2):
            with user_context(value):
                track("nobody")
        track("nobody", user_id=value)
        identify({"plan": "pro"}, user_id=value)
        track("no account", group_id=value)
    bind_user(value)
    track("nobody")
    assert users(inspector) == [("no account", "around", None)]
    assert stats().dropped == {"unattributed": 5}
    messages = [message for message in caplog.messages if "_id: " in message]
    assert len(messages) == 2
    assert messages[0].startswith("ts_autotrack: user_id: ")
    assert words in messages[0]
    assert messages[0].endswith("Events count as 'unattributed'")
    assert messages[1].startswith("ts_autotrack: group_id: ")
    assert messages[1].endswith("Events are sent without an account")
    assert "jane@x" not in caplog.text


def test_a_coroutine_is_no_id(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten `await` is named; the coroutine is left alone."""
    coroutine = current_user()
    track("e", user_id=coroutine)
    assert users(inspector) == []
    assert "an awaitable is no id (got current_user); did you forget to await it?" in caplog.text
    with pytest.raises(StopIteration):
        coroutine.send(None)


def test_no_side_effects_on_refused_values(inspector: Inspector) -> None:
    """A mock records no call; no `__getattr__`, and no property but the flags of a user object, is asked."""
    mock = MagicMock()
    asked: list[str] = []

    class Curious:
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            raise AttributeError(name)

        @property
        def id(self) -> object:
            asked.append("id")
            return 5

    for value in (mock, Curious()):
        track("e", user_id=value)
    assert users(inspector) == []
    assert mock.mock_calls == []
    assert asked == []


DJANGO = """
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"], USE_I18N=False)
import django
django.setup()
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy
from ts_autotrack import track, stats, flush

track("text", user_id=gettext_lazy("user"))
track("primary key", user_id=User(pk=5).pk)
track("anonymous", user_id=AnonymousUser())
track("lazy", user_id=SimpleLazyObject(AnonymousUser))
flush()
user = User(pk=5, username="jane@x")
for value in (user, SimpleLazyObject(lambda: user), User, User.username, User.objects, User.objects.all(),
              User._meta.get_field("id"), Permission(pk=7)):
    track("refused", user_id=value)
flush()
print(dict(stats().dropped))
"""


def test_django_s_objects() -> None:
    """Django's lazy texts are ids; users, managers and queries are none; anonymous users need no warning."""
    done = run_python(DJANGO, TS_AUTOTRACK_EXPORTER="jsonl")
    *lines, dropped = done.stdout.splitlines()
    items = [json.loads(line)["item"] for line in lines]
    assert [(item["event_name"], item["user_id"]) for item in items] == [("text", "user"), ("primary key", "5")]
    assert dropped == "{'unattributed': 10}"
    refused = [line for line in done.stderr.splitlines() if "is no id" in line]
    assert "a record of a database is no id (got django.contrib.auth.models.User); pass its id" in refused[0]
    assert len(refused) == 7, done.stderr
    assert "jane@x" not in done.stderr
