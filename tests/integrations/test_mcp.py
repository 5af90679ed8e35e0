"""Tools of MCP servers, in process: the package mcp and FastMCP."""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from mcp.client.client import Client
from mcp.server.mcpserver import MCPServer

import ts_autotrack
from ts_autotrack import bind_user, track, track_feature
from ts_autotrack.integrations.mcp import instrument_mcp, uninstrument_mcp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector

PACKAGES = ["mcp", pytest.param("fastmcp", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="needs 3.11"))]


def ann(_: object) -> str:
    """Return a user."""
    return "ann"


@pytest.fixture(params=PACKAGES)
def server(request: pytest.FixtureRequest) -> Any:
    """A server of each package, with the tools `add` and `fail`."""
    made: Any
    if request.param == "mcp":
        made = MCPServer("app")
    else:
        import fastmcp  # noqa: PLC0415 - needs Python 3.11

        made = fastmcp.FastMCP("app")

    def add(number: int, other: int) -> int:
        return number + other

    def fail(number: int) -> int:
        raise ValueError(number)

    for function in (add, fail):
        made.tool()(function)
    return made


def call(server: Any, *tools: str, **arguments: object) -> list[bool]:
    """Call tools one after the other in one session; return True for each success."""

    async def call_all() -> list[bool]:
        if isinstance(server, MCPServer):
            async with Client(server) as client:
                return [not (await client.call_tool(tool, arguments)).is_error for tool in tools]
        import fastmcp  # noqa: PLC0415

        async with fastmcp.Client(server) as fast:
            return [not (await fast.call_tool(tool, arguments, raise_on_error=False)).is_error for tool in tools]

    return asyncio.run(call_all())


def used(inspector: Inspector) -> list[tuple[str, str]]:
    """Return feature (or the event's name) and user of all events."""
    assert ts_autotrack.flush()
    return [(item["properties"].get("feature_name", item["event_name"]), item["user_id"]) for item in inspector.items()]


def test_tools_are_features(inspector: Inspector, server: Any) -> None:
    """A success makes one event without the arguments; failures, unknown tools, and other requests make none."""
    instrument_mcp(server, ann)
    assert call(server, "add", number=1, other=2) == [True]
    assert call(server, "fail", number=1) == [False]
    assert call(server, "unknown") == [False]
    assert used(inspector) == [("add", "ann")]
    (item,) = inspector.items()
    assert item["properties"] == {"feature_name": "add", "action": "add", "interface": "agent"}


def test_without_a_token_nobody_is_known(inspector: Inspector, server: Any) -> None:
    """Without `user` and token an event has no user."""
    instrument_mcp(server)
    assert call(server, "add", number=1, other=2) == [True]
    assert used(inspector) == []
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_user_may_be_a_coroutine_function(inspector: Inspector, server: Any) -> None:
    """An async resolver is awaited at the end of the call."""

    async def user(token: object) -> tuple[str, str]:
        await asyncio.sleep(0)
        return f"user of {token}", "acme"

    instrument_mcp(server, user)
    assert call(server, "add", number=1, other=2) == [True]
    assert used(inspector) == [("add", "user of None")]


def test_binding_ends_with_the_call(inspector: Inspector, server: Any) -> None:
    """`bind_user` in a tool names the user of this call, not of the next one in the session."""
    instrument_mcp(server)

    def login() -> None:
        track("signing_in")
        bind_user("bob")

    def work() -> None: ...

    server.tool()(login)
    server.tool()(work)
    assert call(server, "login", "work") == [True, True]
    assert sorted(used(inspector)) == [("login", "bob"), ("signing_in", "bob")]
    assert ts_autotrack.stats().dropped == {"unattributed": 1}


def test_calls_at_once_have_own_users(inspector: Inspector, server: Any) -> None:
    """50 calls in progress at the same time: each event has the user of its call."""
    instrument_mcp(server)
    arrived: list[str] = []

    async def work(name: str) -> None:
        bind_user(name)
        arrived.append(name)
        while len(arrived) < 50:  # noqa: ASYNC110 - the calls of one session wait for each other
            await asyncio.sleep(0)
        track("worked", {"name": name})

    server.tool()(work)

    async def call_all() -> None:
        names = [f"user-{number}" for number in range(50)]
        if isinstance(server, MCPServer):
            async with Client(server) as client:
                await asyncio.gather(*(client.call_tool("work", {"name": name}) for name in names))
            return
        import fastmcp  # noqa: PLC0415

        async with fastmcp.Client(server) as fast:
            await asyncio.gather(*(fast.call_tool("work", {"name": name}) for name in names))

    asyncio.run(call_all())
    assert ts_autotrack.flush()
    worked = inspector.items(event_name="worked")
    assert {item["properties"]["name"]: item["user_id"] for item in worked} == {name: name for name in arrived}
    assert sorted(user for feature, user in used(inspector) if feature == "work") == sorted(arrived)


def test_other_names_and_decorated_tools(inspector: Inspector, server: Any) -> None:
    """A decorated tool makes its event in addition; `features=` renames tools, and leaves out those named None."""
    instrument_mcp(server, ann, features={"add": "sum", "quiet": None})

    def quiet() -> None: ...

    def loud() -> None: ...

    for function in (quiet, loud):
        server.tool()(track_feature(f"own_{function.__name__}")(function))
    call(server, "add", number=1, other=2)
    call(server, "quiet", "loud")
    assert used(inspector) == [("sum", "ann"), ("own_quiet", "ann"), ("own_loud", "ann"), ("loud", "ann")]


def test_second_call_changes_nothing(inspector: Inspector, server: Any) -> None:
    """Only the first call counts; a server is undone, and can be instrumented again."""
    for user in (ann, lambda _: "other"):
        instrument_mcp(server, user)
    call(server, "add", number=1, other=2)
    uninstrument_mcp(server)
    call(server, "add", number=1, other=2)
    instrument_mcp(server, lambda _: "bob")
    call(server, "add", number=1, other=2)
    assert used(inspector) == [("add", "ann"), ("add", "bob")]


def test_failing_resolver_leaves_the_call_alone(
    inspector: Inspector, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in `user` is logged; the tool answers, its event has no user."""

    def user(_: object) -> str:
        raise LookupError

    instrument_mcp(server, user)
    assert call(server, "add", number=1, other=2) == [True]
    assert used(inspector) == []
    assert "LookupError" in caplog.text


@pytest.mark.skipif(sys.version_info < (3, 11), reason="fastmcp needs 3.11")
def test_mounted_server_makes_no_second_event(inspector: Inspector) -> None:
    """Of two instrumented servers, one mounted in the other, the outer one counts."""
    import fastmcp  # noqa: PLC0415

    outer, inner = fastmcp.FastMCP("outer"), fastmcp.FastMCP("inner")
    inner.tool(lambda: 1, name="work")
    outer.mount(inner, namespace="shop")
    instrument_mcp(inner, lambda _: "inner")
    instrument_mcp(outer, lambda _: "outer")
    assert call(outer, "shop_work") == [True]
    assert call(inner, "work") == [True]
    assert used(inspector) == [("shop_work", "outer"), ("work", "inner")]


@pytest.mark.parametrize(
    "result", [{"isError": True}, {"resultType": "input_required"}, None, SimpleNamespace(is_error=True)]
)
def test_unfinished_results_are_no_success(inspector: Inspector, result: object) -> None:
    """An error, and the request of a tool for the client's input, make no event. The result passes unchanged."""
    server = MCPServer("app")
    instrument_mcp(server, ann)
    middleware: Any = server.middleware[-1]

    async def answer(_: object) -> Any:
        return result

    request = SimpleNamespace(method="tools/call", params={"name": "add"}, request=None)
    assert asyncio.run(middleware(request, answer)) is result
    assert used(inspector) == []


@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(0), ValueError()])
def test_ends_by_exceptions_are_no_success(inspector: Inspector, error: BaseException) -> None:
    """A call that is cancelled, or raises anything, makes no event; the exception passes unchanged."""
    server = MCPServer("app")
    instrument_mcp(server, ann)
    middleware: Any = server.middleware[-1]

    async def fail(_: object) -> Any:
        raise error

    async def run() -> BaseException | None:
        try:
            await middleware(SimpleNamespace(method="tools/call", params={"name": "add"}, request=None), fail)
        except BaseException as caught:  # noqa: BLE001 - the exception is the result
            return caught
        return None

    assert asyncio.run(run()) is error
    assert used(inspector) == []


def test_unverified_identities_are_nobody(inspector: Inspector) -> None:
    """Headers, and users of other authentication, name nobody."""
    server = MCPServer("app")
    instrument_mcp(server)
    middleware: Any = server.middleware[-1]

    async def answer(_: object) -> Any:
        return {"content": []}

    token = SimpleNamespace(subject="eve", claims={"sub": "eve"})
    scope = {"user": SimpleNamespace(access_token=token), "headers": [(b"authorization", b"Bearer eve")]}
    request = SimpleNamespace(method="tools/call", params={"name": "add"}, request=SimpleNamespace(scope=scope))
    asyncio.run(middleware(request, answer))
    assert used(inspector) == []


def test_wrong_arguments_raise() -> None:
    """A wrong argument is refused, and named."""
    wrong: list[tuple[str, type[Exception], tuple[Any, ...], dict[str, Any]]] = [
        ("package mcp from version 2", TypeError, (object(),), {}),
        ("package mcp from version 2", TypeError, (MCPServer,), {}),
        ("user=", TypeError, (MCPServer("app"), "ann"), {}),
        ("features=", TypeError, (MCPServer("app"),), {"features": ["add"]}),
        ("features=", ValueError, (MCPServer("app"),), {"features": {"add": ""}}),
    ]
    refuse: Callable[..., None] = instrument_mcp
    for message, error, arguments, options in wrong:
        with pytest.raises(error, match=message):
            refuse(*arguments, **options)
