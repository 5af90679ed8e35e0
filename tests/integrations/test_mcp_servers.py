"""MCP servers in processes of their own, with real clients: users are never mixed up, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.conftest import wait_until
from tests.integrations.load import ROOT, free_port, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow

APP = "tests.integrations.apps.mcp_app"
CALLS = 4
PACKAGES = ["mcp", pytest.param("fastmcp", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="needs 3.11"))]


@contextlib.asynccontextmanager
async def connected(port: int, transport: str, token: str) -> AsyncIterator[Client]:
    """Return a client with a session and connection of its own."""
    headers = {"Authorization": f"Bearer {token}"}
    if transport == "sse":
        async with Client(sse_client(f"http://127.0.0.1:{port}/sse", headers=headers, timeout=60)) as client:
            yield client
        return
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http)) as client,
    ):
        yield client


async def call_tools(client: Client, number: int, answered: list[int]) -> None:
    """Call both tools in turn, each with a number of its own; a tool that fails in between."""
    for call in range(number, number + CALLS):
        result = await client.call_tool("work_async" if call % 2 else "work", {"number": call})
        assert not result.is_error
        answered.append(call)
        if call % 5 == 0:
            assert (await client.call_tool("fail", {"number": call})).is_error


def check(inspector: Inspector, users: dict[int, str]) -> None:
    """Check that each answered call made two events of its user, the tool's and the decorator's, and nobody's none."""
    items = inspector.items()
    owner = {number: user for number, user in users.items() if user}
    worked = [item for item in items if item["properties"]["feature_name"] == "worked"]
    assert {item["properties"]["number"]: item["user_id"] for item in worked} == owner
    tools = [item for item in items if item["properties"].get("interface") == "agent"]
    expected = Counter((user, "work_async" if number % 2 else "work") for number, user in owner.items())
    assert Counter((item["user_id"], item["properties"]["feature_name"]) for item in tools) == expected
    assert len(items) == len(worked) + len(tools) == 2 * len(owner)
    assert len({item["context"]["event_id"] for item in items}) == len(items)
    for item in items:
        user = item["user_id"]
        assert (item["context"]["group_id"], item["properties"]["plan"]) == (f"account-{user}", f"plan-{user}")


@pytest.mark.parametrize("transport", ["stateful", "stateless"])
@pytest.mark.parametrize("package", PACKAGES)
def test_no_event_has_another_user(inspector: Inspector, package: str, transport: str) -> None:
    """20 users with own tokens and 4 anonymous clients at once, each in own sessions: every event has its own user."""
    port = free_port()
    users: dict[int, str] = {}

    async def use(index: int) -> None:
        user = f"user-{index}" if index < 20 else ""
        answered: list[int] = []
        async with connected(port, transport, f"token-{user}") as client:
            await call_tools(client, index * CALLS, answered)
        users.update(dict.fromkeys(answered, user))

    async def use_all() -> None:
        await asyncio.gather(*(use(index) for index in range(24)))

    with running([APP, package, transport, str(port)], port, THRIVESTACK_ENDPOINT=inspector.endpoint):
        asyncio.run(use_all())
    assert len(users) == 24 * CALLS
    check(inspector, users)


@pytest.mark.parametrize("package", PACKAGES)
def test_stdio(inspector: Inspector, package: str) -> None:
    """Over stdio the environment names the user. The last events arrive after the end of the server."""
    environment = {
        "APP_USER": "user-7",
        "THRIVESTACK_ENDPOINT": inspector.endpoint,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
    }
    command = StdioServerParameters(
        command=sys.executable, args=["-m", APP, package, "stdio"], env=environment, cwd=str(ROOT)
    )
    answered: list[int] = []

    async def use() -> None:
        async with Client(stdio_client(command)) as client:
            await call_tools(client, 0, answered)

    asyncio.run(use())
    wait_until(lambda: len(inspector.items()) >= 2 * CALLS, "all events")
    check(inspector, dict.fromkeys(answered, "user-7"))


def test_example_is_short() -> None:
    """The application has less than 60 lines."""
    assert len((ROOT / "examples" / "mcp_app" / "app.py").read_text().splitlines()) < 60


def test_example_s_events_arrive(inspector: Inspector) -> None:
    """The example's tools arrive with user and account; a failure does not, nor a tool that is left out."""
    environment = {"REPORTS_TOKEN": "ann-token", "THRIVESTACK_ENDPOINT": inspector.endpoint}
    app = str(ROOT / "examples" / "mcp_app" / "app.py")
    command = StdioServerParameters(command=sys.executable, args=[app], env=environment)

    async def use() -> None:
        async with Client(stdio_client(command)) as client:
            for number in (1, 9):
                await client.call_tool("export", {"number": number})
            for tool in ("list_reports", "whoami"):
                await client.call_tool(tool, {})

    asyncio.run(use())
    wait_until(lambda: len(inspector.items()) >= 2, "both events")
    items = inspector.items()
    found = [(item["properties"]["feature_name"], item["user_id"], item["context"]["group_id"]) for item in items]
    assert found == [("report_export", "ann", "acme"), ("list_reports", "ann", "acme")]
