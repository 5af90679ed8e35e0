"""OpenTelemetry baggage as the fallback for identity."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator

from tests.conftest import run_python
from tests.core.identity.conftest import users
from ts_autotrack import bind_user, configure, request_scope, track, user_context
from ts_autotrack._core.config import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Inspector


@pytest.fixture
def carried() -> Iterator[None]:
    """Baggage as carried by an inbound request."""
    token = context.attach(baggage.set_baggage("user.id", "from_baggage"))
    inner = context.attach(baggage.set_baggage("tenant.id", "tenant"))
    yield
    context.detach(inner)
    context.detach(token)


@pytest.mark.usefixtures("carried")
def test_baggage_is_the_fallback(inspector: Inspector) -> None:
    """Baggage gives the ids missing elsewhere, and the event says so. The account of another user is none of them."""
    track("baggage")
    track("baggage")
    with user_context("from_baggage"):
        track("user")
    with user_context("another"):
        track("another")
    with user_context("u", group_id="g"):
        track("both")
    track("own", user_id="own", group_id="own")
    assert users(inspector) == [
        ("baggage", "from_baggage", "tenant"),
        ("baggage", "from_baggage", "tenant"),
        ("user", "from_baggage", "tenant"),
        ("another", "another", None),
        ("both", "u", "g"),
        ("own", "own", "own"),
    ]
    sources = [item["context"].get("identity_source") for item in inspector.items()]
    assert sources == ["baggage", "baggage", "baggage", None, None, None]


@pytest.mark.usefixtures("carried")
def test_baggage_can_be_turned_off(inspector: Inspector) -> None:
    """With BAGGAGE off, an outside caller cannot name the user."""
    configure(baggage=False)
    track("baggage")
    assert users(inspector) == []


@pytest.mark.parametrize("value", ["x" * 257, "  ", 7, None, b"x", "line\nbreak", "\0", "\ud800", "", ";a=b"])
def test_strange_baggage_is_no_identity(inspector: Inspector, value: Any) -> None:
    """An id in baggage is a text of at most 256 printable characters; the next key in the list is tried."""
    token = context.attach(baggage.set_baggage("user.id", value))
    track("strange")
    inner = context.attach(baggage.set_baggage("enduser.id", "second"))
    track("second")
    context.detach(inner)
    context.detach(token)
    other = context.attach(baggage.set_baggage("unrelated", "x"))
    track("none")
    context.detach(other)
    assert users(inspector) == [("second", "second", None)]


@pytest.mark.parametrize(
    ("header", "user"),
    [
        ("user.id=u;source=web;flag", "u"),
        ("user.id=jane%2Bdoe%40example.com", "jane+doe@example.com"),
        ("user.id=Zo%C3%AB%20B;p=1", "Zoë B"),
        ("user.id=acme%3B7,enduser.id=second", "second"),
        ("user.id=%FF%FE,enduser.id=second", "second"),
        ("user.id=%00,enduser.id=second", "second"),
        ("user.id=,enduser.id=second", "second"),
    ],
)
def test_headers_are_decoded(inspector: Inspector, header: str, user: str) -> None:
    """Ids are percent-decoded without the properties of their entry, and no id ends at a semicolon of its own."""
    token = context.attach(W3CBaggagePropagator().extract({"baggage": header}))
    track("e")
    context.detach(token)
    assert users(inspector) == [("e", user, None)]


@pytest.mark.parametrize("order", [["enduser.id", "app/user"], "enduser.id, app/user", ("enduser.id", "app/user")])
def test_keys_are_settings(inspector: Inspector, caplog: pytest.LogCaptureFixture, order: Any) -> None:
    """Settings name the keys; the first present key counts, others are ignored, and the announcement names all."""
    configure(baggage_user_keys=order, baggage_group_keys="workspace")
    for entries in ({"app/user": "b", "user.id": "c", "tenant.id": "d"}, {"app/user": "b", "enduser.id": "a"}):
        carried: Any = context.Context()
        for name, value in entries.items():
            carried = baggage.set_baggage(name, value, carried)
        token = context.attach(baggage.set_baggage("workspace", "w", carried))
        track("e")
        context.detach(token)
    assert users(inspector) == [("e", "b", "w"), ("e", "a", "w")]
    assert "(user: enduser.id or app/user; account: workspace)" in caplog.text


def test_other_keys_count_at_once(inspector: Inspector) -> None:
    """A change of the keys holds for the next event, in the same OpenTelemetry context, too."""
    token = context.attach(baggage.set_baggage("app.user", "b", baggage.set_baggage("user.id", "a")))
    track("e")
    configure(baggage_user_keys=["app.user"])
    track("e")
    context.detach(token)
    assert users(inspector) == [("e", "a", None), ("e", "b", None)]


@pytest.mark.parametrize("bad", ["", ",", "two words", "a=b", ["user.id", 7], [], 7, "a;b", ["k"] * 2 + ["schlüssel"]])
def test_bad_keys(bad: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad keys raise in `configure()`; in the environment they warn, and the defaults hold."""
    with pytest.raises(ValueError, match="baggage_user_keys="):
        configure(baggage_user_keys=bad)
    if isinstance(bad, str) and bad:
        monkeypatch.setenv("TS_AUTOTRACK_BAGGAGE_GROUP_KEYS", bad)
        assert load({}).baggage.group_keys[0] == "group.id"
        assert "TS_AUTOTRACK_BAGGAGE_GROUP_KEYS=" in caplog.text


def test_the_environment_holds_for_the_first_event() -> None:
    """Keys in the environment are in force from the import on."""
    code = """
from opentelemetry import baggage, context
from ts_autotrack import current_user
context.attach(baggage.set_baggage("app.user", "b", baggage.set_baggage("user.id", "a")))
print(current_user().user_id)
"""
    assert run_python(code, TS_AUTOTRACK_BAGGAGE_USER_KEYS="app.user").stdout == "b\n"
    assert run_python(code, TS_AUTOTRACK_BAGGAGE="0").stdout == "None\n"


HEADERS = {"baggage": "user.id=victim,account.id=acme%20inc", "accept": "*/*"}


@pytest.mark.parametrize(
    "headers",
    [HEADERS, [*HEADERS.items()], lambda: HEADERS, [("Baggage", "user.id=victim"), ("baggage", "account.id=acme+inc")]],
)
def test_baggage_of_a_request_s_own_headers(inspector: Inspector, headers: Any) -> None:
    """Ids in the baggage that came in with a request are ignored; ids that the application sets inside count."""
    arrived = W3CBaggagePropagator().extract({"baggage": HEADERS["baggage"]})
    token = context.attach(arrived)
    with request_scope(headers=headers):
        track("forged")
        inner = context.attach(baggage.set_baggage("user.id", "known", baggage.set_baggage("account.id", "own")))
        track("set inside")
        context.detach(inner)
    with request_scope():
        track("trusted")
    context.detach(token)
    assert users(inspector) == [("set inside", "known", "own"), ("trusted", "victim", "acme inc")]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (["user.id=victim", "user.id=me"], 0),
        (["user.id=me", "user.id=victim"], 1),
        (["user.id=victim", "account.id=a", "user.id=me"], 0),
        (["user.id=victim", "user.id=me," * 500], 0),
        (["user.id=victim", *[f"k{number}={'x' * 4_000}" for number in range(3)]], 0),
    ],
)
def test_one_of_several_headers_is_not_trusted(inspector: Inspector, values: list[str], read: int) -> None:
    """An id from any of several headers is ignored. Instrumentations read different ones of these headers."""
    token = context.attach(W3CBaggagePropagator().extract({"baggage": values[read]}))
    with request_scope(headers=[("baggage", value) for value in values]):
        track("forged")
    context.detach(token)
    assert users(inspector) == []


def test_joined_headers_are_not_trusted(inspector: Inspector) -> None:
    """Ids are ignored, too, if the server has joined the headers of which the instrumentation has read the first."""
    token = context.attach(W3CBaggagePropagator().extract({"baggage": "user.id=victim"}))
    with request_scope(headers={"baggage": "user.id=victim,user.id=me"}):
        track("forged")
    context.detach(token)
    assert users(inspector) == []


@pytest.mark.parametrize(("chosen", "user"), [(None, None), (True, "victim")])
def test_baggage_of_a_request_does_not_count_in_its_threads(
    inspector: Inspector, chosen: Any, user: str | None
) -> None:
    """A thread with the baggage of an untrusted request, but without its scope, needs the setting to be credited.

    OpenTelemetry's instrumentation of threads hands the baggage on.
    """
    configure(baggage=chosen)
    arrived = W3CBaggagePropagator().extract(HEADERS)

    def work() -> None:
        context.attach(arrived)
        track("thread")
        with user_context("jane"):
            track("own")

    with request_scope(headers=HEADERS):
        bind_user("known")
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert users(inspector) == [*([("thread", user, "acme inc")] if user else []), ("own", "jane", None)]


def test_headers_that_cannot_be_read(inspector: Inspector) -> None:
    """If the headers of a request cannot be read, no baggage counts."""
    token = context.attach(baggage.set_baggage("user.id", "victim"))
    with request_scope(headers=lambda: 1 / 0):  # type: ignore[arg-type, return-value]
        track("forged")
    context.detach(token)
    assert users(inspector) == []


@pytest.mark.usefixtures("carried")
@pytest.mark.parametrize("chosen", [None, True])
def test_baggage_is_announced(inspector: Inspector, caplog: pytest.LogCaptureFixture, chosen: Any) -> None:
    """The first event credited by baggage says so in one line, unless the setting says that baggage is wanted."""
    configure(baggage=chosen)
    track("e")
    track("e")
    assert len(users(inspector)) == 2
    assert caplog.text.count("TS_AUTOTRACK_BAGGAGE=1 to confirm") == (chosen is None)
