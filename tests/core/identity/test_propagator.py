"""The ids of the acting user in outgoing OpenTelemetry baggage, as real propagators write them."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, propagate
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tests.conftest import run_python
from ts_autotrack import (
    bind_user,
    clear_user,
    configure,
    propagate_context,
    request_scope,
    suppress,
    user_context,
)
from ts_autotrack._core import diagnostics
from ts_autotrack._core.identity.propagator import BaggagePropagator, IdsPropagator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def own_propagator() -> Iterator[None]:
    """Restore the global propagator and the settings of baggage."""
    before = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(before)
    configure(exporter="none", propagate_baggage=False, baggage_user_keys="user.id,enduser.id")


@pytest.fixture(autouse=True)
def inert() -> None:
    """The library without a key: it may write ids all the same."""
    configure(exporter="console", propagate_baggage=False)


def sent(**entries: str) -> dict[str, object]:
    """Return the baggage of a request sent here, in a context with these entries: `user__id` means "user.id"."""
    token = context.attach(context.Context())
    for name, value in entries.items():
        context.attach(baggage.set_baggage(name.replace("__", "."), value))
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    context.detach(token)
    return dict(baggage.get_all(propagate.extract(carrier, context.Context())))


IDS = {"user.id": "u", "group.id": "g"}


def test_a_block_asks_for_the_ids() -> None:
    """Inside a block with propagate=True the ids travel, and nothing else; an inner block may turn that off."""
    assert sent() == {}
    with user_context("u", group_id="g", user_email="jane@example.com", device_type="mobile", propagate=True):
        assert sent() == IDS
        with user_context(plan="pro"):
            assert sent() == IDS
        with user_context("other"):
            assert sent() == {"user.id": "other"}
        with user_context(propagate=False):
            assert sent() == {}
            with user_context(propagate=True):
                assert sent() == IDS
        with suppress():
            assert sent() == {}
        bind_user("bound")
        assert sent() == {"user.id": "bound"}
        clear_user()
        assert sent() == {}
    with user_context("u"):
        assert sent() == {}


def test_a_setting_asks_for_the_ids() -> None:
    """With propagate_baggage the ids travel everywhere, under the first keys of the settings."""
    configure(propagate_baggage=True, baggage_user_keys=["app.user", "user.id"])
    with user_context("u", group_id="g"):
        assert sent() == {"app.user": "u", "group.id": "g"}
        with user_context(propagate=False):
            assert sent() == {}
    assert sent() == {}


@pytest.mark.parametrize("asks", [{"disabled": True}, {"exporter": "none"}])
def test_a_disabled_library_writes_nothing(asks: dict[str, Any]) -> None:
    """No block puts ids into outgoing baggage while the library is off."""
    configure(propagate_baggage=True, **asks)
    with user_context("u", propagate=True):
        assert sent() == {}
    configure(disabled=False)


def test_entries_of_the_application_stay() -> None:
    """The application's own entries travel on in one header; ids of another user are replaced, account included."""
    with user_context("u", propagate=True):
        assert sent(color="red") == {"color": "red", "user.id": "u"}
        assert sent(color="red", enduser__id="other", account__id="others") == {"color": "red", "user.id": "u"}
    with user_context("u", group_id="g", propagate=True):
        assert sent(user__id="other", tenant__id="others") == IDS
        assert sent(enduser__id="u", tenant__id="g") == {"enduser.id": "u", "tenant.id": "g"}


def test_ids_of_baggage_travel_unchanged() -> None:
    """A user known by baggage travels already, under the keys of the sender."""
    configure(propagate_baggage=True)
    assert sent(enduser__id="u", tenant__id="g", color="red") == {"enduser.id": "u", "tenant.id": "g", "color": "red"}


def test_ids_of_an_untrusted_request_do_not_travel() -> None:
    """Ids in the baggage of a request whose headers are not trusted end here: the next service trusts this service."""
    configure(propagate_baggage=True)
    with request_scope(headers={"baggage": "user.id=victim,account.id=theirs,color=red"}):
        forged = {"user__id": "victim", "account__id": "theirs", "color": "red"}
        assert sent(**forged) == {"color": "red"}
        with suppress():
            assert sent(**forged) == {"color": "red"}
        bind_user("victim")
        assert sent(**forged) == {"color": "red", "user.id": "victim"}


def test_work_begun_inside_a_block() -> None:
    """Tasks, threads with `propagate_context`, and decorated functions propagate as the block around them."""
    found = []

    async def task() -> dict[str, object]:
        await asyncio.sleep(0)
        return sent()

    async def main() -> dict[str, object]:
        with user_context("u", group_id="g", propagate=True):
            begun = asyncio.ensure_future(task())
        return await begun

    assert asyncio.run(main()) == IDS
    with user_context("u", group_id="g", propagate=True):
        thread = threading.Thread(target=propagate_context(lambda: found.append(sent())))
    thread.start()
    thread.join()
    assert found == [IDS]
    assert user_context("u", group_id="g", propagate=True)(sent)() == IDS
    with pickle.loads(pickle.dumps(user_context("u", group_id="g", propagate=True))):  # noqa: S301 - made here
        assert sent() == IDS


def test_a_block_closed_elsewhere_propagates_no_more() -> None:
    """A block that was left in another context leaves nothing behind in its own."""

    def steps() -> Iterator[None]:
        with user_context("u", group_id="g", propagate=True):
            yield

    with user_context("around"):
        generator = steps()
        next(generator)
        assert sent() == IDS
        thread = threading.Thread(target=generator.close)  # type: ignore[attr-defined]  # a generator
        thread.start()
        thread.join()
        assert sent() == {}


def test_the_resolver_of_a_request_is_asked() -> None:
    """A request's user is known at the time of sending, also if only its resolver knows the user."""
    with request_scope(lambda: ("u", "g")), user_context(propagate=True):
        assert sent() == IDS


@pytest.mark.parametrize("bad", ["a;b=c", "line\nbreak", "\ud800", "x" * 257])
def test_ids_that_cannot_travel(bad: str, caplog: pytest.LogCaptureFixture) -> None:
    """An id that a reader of baggage would change or refuse is left out, with a warning, and so is its account."""
    with user_context(bad, group_id="g", propagate=True):
        assert sent(user__id="other", color="red") == {"color": "red"}
    with user_context("u", group_id=bad, propagate=True):
        assert sent() == {"user.id": "u"}
    diagnostics.report()
    assert caplog.text.count("outgoing baggage carries no ids that have control characters") == 1


@pytest.mark.parametrize("text", ["jane+doe@example.com", "acme inc", "Zoë 🎉", 'a"b,c\\d=e%20f'])
def test_ids_arrive_as_they_were_sent(text: str) -> None:
    """Ids with spaces, plus signs, commas and letters of all languages are encoded for the header."""
    with user_context(text, group_id=text, propagate=True):
        assert sent() == {"user.id": text, "group.id": text}


def test_the_propagator_of_the_application_is_wrapped_once(caplog: pytest.LogCaptureFixture) -> None:
    """Each block looks at the global propagator. If this propagator writes no baggage, one warning names the remedy."""
    for _ in range(3):
        with user_context("u", propagate=True):
            wrapper = propagate.get_global_textmap()
    assert isinstance(wrapper, IdsPropagator)
    assert not isinstance(wrapper._inner, IdsPropagator)
    assert wrapper.fields == wrapper._inner.fields
    for _ in range(2):
        propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator()]))
        with user_context("u", propagate=True):
            assert sent() == {}
    diagnostics.report()
    assert caplog.text.count("Add baggage to OTEL_PROPAGATORS") == 1


def test_binding_a_user_does_not_propagate(caplog: pytest.LogCaptureFixture) -> None:
    """`propagate` belongs to a block: `bind_user` says so in a warning."""
    bind_user("u", propagate=True)
    assert sent() == {}
    diagnostics.report()
    assert "bind_user(propagate=...) has no effect" in caplog.text


def test_the_propagator_as_an_entry_point() -> None:
    """`ts_autotrack` in OTEL_PROPAGATORS writes the ids without a setting, and replaces the header of `baggage`."""
    code = """
from opentelemetry import baggage, context, propagate
from ts_autotrack import request_scope, suppress, user_context
def sent():
    carrier = {}
    propagate.inject(carrier)
    print(carrier)
context.attach(baggage.set_baggage("user.id", "other"))
with user_context("u"):
    sent()
    with user_context(propagate=False): sent()
    with user_context("v", propagate=True): sent()
with request_scope(headers={"baggage": "user.id=other"}): sent()
"""
    for names in ("tracecontext,baggage,ts_autotrack", "ts_autotrack"):
        result = run_python(code, OTEL_PROPAGATORS=names)
        headers = ["user.id=u", "user.id=other", "user.id=v", ""]
        assert result.stdout == "".join(f"{ ({'baggage': header}) }\n" for header in headers), result.stderr
        off = run_python(code, OTEL_PROPAGATORS=names, TS_AUTOTRACK_PROPAGATE_BAGGAGE="0")
        assert off.stdout.count("other") == 3, off.stderr
        on = run_python(code, OTEL_PROPAGATORS=names, TS_AUTOTRACK_PROPAGATE_BAGGAGE="1", THRIVESTACK_API_KEY="k")
        assert on.stdout.splitlines()[2] == "{'baggage': 'user.id=v'}", on.stderr
    assert BaggagePropagator().fields == {"baggage"}


def test_propagators_that_fail_to_load() -> None:
    """With a bad OTEL_PROPAGATORS, a block and the setting do no harm; one warning names the variable."""
    code = """
from ts_autotrack import configure, user_context
for _ in range(2):
    with user_context("u", propagate=True): pass
configure(exporter="console")
from ts_autotrack._core import diagnostics
diagnostics.report()
"""
    result = run_python(code, OTEL_PROPAGATORS="nonsense", TS_AUTOTRACK_PROPAGATE_BAGGAGE="1")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("Check OTEL_PROPAGATORS") == 1


def test_opentelemetry_is_imported_only_if_asked_for() -> None:
    """Without a block or a setting that asks for the ids, nothing of OpenTelemetry is imported."""
    code = """
import sys
from ts_autotrack import track, user_context
with user_context("u", propagate=False): track("e")
print("opentelemetry" in sys.modules)
"""
    assert run_python(code).stdout == "False\n"
