"""Commands, tools, RPCs and GraphQL fields, tracked without a line of the application's code."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click
import grpc
import pytest
import strawberry
import typer
from click.testing import CliRunner
from flask.cli import FlaskGroup
from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import MCPServer
from typer.testing import CliRunner as TyperRunner

import ts_autotrack
from tests.integrations.automatic import events, track, undone
from tests.integrations.test_grpc import EXPORT, answer, serving, user_of
from tests.integrations.test_grpc import call as call_rpc
from tests.integrations.test_grpc_aio import call as call_aio
from tests.integrations.test_grpc_aio import serve
from tests.integrations.test_mcp import call as call_tools
from ts_autotrack import request_scope, track_feature, user_context
from ts_autotrack.integrations import _automatic
from ts_autotrack.integrations.click import instrument_click
from ts_autotrack.integrations.grpc import TrackingInterceptor
from ts_autotrack.integrations.mcp import instrument_mcp
from ts_autotrack.integrations.strawberry import tracking_extension

if TYPE_CHECKING:
    from tests.conftest import Inspector

__all__ = ["undone"]


def ann() -> str:
    """Return a user."""
    return "ann"


def program() -> click.Group:
    """Return a command line with two commands in a group, and one beside."""

    @click.group()
    def cli() -> None: ...

    @cli.group()
    @click.option("--format")
    def report(format: str | None) -> None: ...  # noqa: A002 - the option's name

    @report.command()
    def export() -> None: ...

    @report.command()
    def show() -> None: ...

    @cli.command()
    @click.option("--name")
    def serve(name: str | None) -> None:
        ts_autotrack.track("served", {"name": name})

    return cli


def run(cli: Any, *lines: str) -> list[int]:
    """Run a command line with each list of arguments; return the exit statuses."""
    return [CliRunner().invoke(cli, line.split()).exit_code for line in lines]


def test_commands_that_the_settings_name_are_features(inspector: Inspector) -> None:
    """No other command is a feature; another command of the program runs as if the library were absent."""
    track("click", {"report export": "report_export"}, user=ann)
    cli = program()
    with user_context("bob"):
        lines = "report --format csv export", "report show", "serve --name export", "report export --help", "wrong"
        assert run(cli, *lines) == [0, 0, 0, 0, 2]
    assert run(cli, "report export") == [0]
    assert events(inspector) == [("report_export", "ann"), ("report_export", "ann"), ("served", "bob")]


def test_other_people_s_command_lines_are_left_alone(inspector: Inspector) -> None:
    """Programs such as `flask` are click programs: their commands are no features, and no request is opened."""
    track("click", {"export": "report_export"}, user=ann)
    group = FlaskGroup()
    kind = type(group)
    assert run(group, "--version") == [0]
    assert type(group) is kind
    assert events(inspector) == []


def test_command_that_is_loaded_when_it_is_called(inspector: Inspector) -> None:
    """A group that finds its commands by itself, as Flask's does, counts by the words that are typed."""
    track("click", {"export": "report_export"}, user=ann)

    class Lazy(click.Group):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            found = super().get_command(ctx, cmd_name)
            return found or click.Command(cmd_name, callback=lambda: None)

    assert run(Lazy("tool"), "export", "other") == [0, 0]
    assert run(click.Command("export", callback=lambda: None), "") == [0]
    assert events(inspector) == [("report_export", "ann"), ("report_export", "ann")]


def test_instrumented_program_wins(inspector: Inspector) -> None:
    """The user and the names of `instrument_click` count."""
    track("click", {"report export": "wrong"}, user=lambda: "wrong")
    cli = program()
    instrument_click(cli, ann)
    assert run(cli, "report export", "report export") == [0, 0]
    assert events(inspector) == [("report_export", "ann"), ("report_export", "ann")]


def test_typer_s_commands(inspector: Inspector) -> None:
    """Typer's apps make their commands anew for each run, and count in the same way."""
    track("typer", {"report export": "report_export", "status": "status"}, user=ann)
    app, reports, single = typer.Typer(), typer.Typer(), typer.Typer()
    reports.command("export")(lambda: None)
    reports.command("show")(lambda: None)
    app.add_typer(reports, name="report")
    single.command("status")(lambda: None)
    for arguments in (["report", "export"], ["report", "show"], ["report", "export"]):
        assert TyperRunner().invoke(app, arguments).exit_code == 0
    assert TyperRunner().invoke(single, []).exit_code == 0
    assert events(inspector) == [("report_export", "ann"), ("report_export", "ann"), ("status", "ann")]


def mcp_server(package: str) -> Any:
    """Return a server with two tools."""
    made: Any
    if package == "mcp":
        made = MCPServer("app")
    else:
        import fastmcp  # noqa: PLC0415 - needs Python 3.11

        made = fastmcp.FastMCP("app")

    @track_feature("work")
    def add(number: int, other: int) -> int:
        return number + other

    def other(number: int, other: int) -> int:
        return number - other

    for function in (add, other):
        made.tool()(function)
    return made


PACKAGES = ["mcp", pytest.param("fastmcp", marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="needs 3.11"))]


@pytest.mark.parametrize("package", PACKAGES)
def test_tools_that_the_settings_name_are_features(inspector: Inspector, package: str) -> None:
    """Each call is a request of its user; a tool is a feature if the settings name it."""
    track("mcp", {"add": "addition"}, user=lambda token: "ann" if token is None else "wrong")
    if package == "fastmcp":
        track("fastmcp", {"add": "addition"}, user=ann)
    assert call_tools(mcp_server(package), "add", "other", number=1, other=2) == [True, True]
    assert events(inspector) == [("addition", "ann"), ("work", "ann")]
    assert [len(Server("low").middleware), len(MCPServer("high").middleware)] == [2, 3]


@pytest.mark.parametrize("package", PACKAGES)
def test_instrumented_server_wins(inspector: Inspector, package: str) -> None:
    """The user and the features of `instrument_mcp` count: each tool is a feature."""
    track(package, {"add": "wrong"}, user=lambda: "wrong")
    server = mcp_server(package)
    instrument_mcp(server, lambda _: "ann")
    assert call_tools(server, "add", "other", number=1, other=2) == [True, True]
    assert events(inspector) == [("add", "ann"), ("other", "ann"), ("work", "ann")]


def test_servers_of_grpc(inspector: Inspector) -> None:
    """New servers, with threads and with asyncio, have the interceptor first; the application's own one wins."""
    track("grpc", {EXPORT: "report_export", "GET /reports": "wrong"}, user=user_of)
    with serving(Export=("unary_unary", answer)) as channel:
        assert call_rpc(channel, "ann") == b"done"
    with serving(TrackingInterceptor(lambda _: "bob"), Export=("unary_unary", answer)) as channel:
        assert call_rpc(channel, "ann") == b"done"

    async def call_as_carl(channel: Any) -> None:
        assert await call_aio(channel, "carl") == b"done"

    serve([], call_as_carl, Export=("unary_unary", answer))
    exports = [("report_export", "ann"), ("report_export", "carl")]
    assert events(inspector) == [*exports, ("work", "ann"), ("work", "bob"), ("work", "carl")]
    assert grpc.server(ThreadPoolExecutor(1), (), ()) is not None


@strawberry.type
class Query:
    """Two fields."""

    @strawberry.field
    def reports(self) -> list[str]:
        """Return reports."""
        return ["sales"]

    @strawberry.field
    def rows(self) -> int:
        """Return a number."""
        return 1


def test_fields_of_a_schema(inspector: Inspector) -> None:
    """Fields that the settings name count, for the request's user; the application's own extension wins."""
    track("strawberry", {"Query.reports": "report_view", "Query.rows": "row_view", "tasks.export": "no field"})
    plain = strawberry.Schema(Query)
    own = strawberry.Schema(Query, extensions=[tracking_extension(features={"Query.reports": "own_view"})])
    for schema in (plain, own):
        with request_scope(ann):
            assert schema.execute_sync("{ reports rows }").errors is None
    assert events(inspector) == [("own_view", "ann"), ("report_view", "ann"), ("row_view", "ann"), ("row_view", "ann")]


def test_keys_without_a_framework_are_told() -> None:
    """A route needs a web framework; a task, command or tool needs one of their frameworks."""
    keys = ["GET /reports/{id}", "myapp.tasks.export", "Query.reports", EXPORT]
    assert _automatic.unused_features(keys) == keys
    track("strawberry")
    assert _automatic.unused_features(keys) == ["GET /reports/{id}", "myapp.tasks.export", EXPORT]
    track("click")
    track("starlette")
    track("grpc")
    assert _automatic.unused_features(keys) == []


def test_options_of_a_feature_arrive(inspector: Inspector, caplog: pytest.LogCaptureFixture) -> None:
    """`feature_type`, `action` and `properties` of the settings are sent; options of functions are told."""
    table = {"feature": "exports", "feature_type": "core", "action": "run", "properties": {"a": 1}, "capture": ["x"]}
    assert _automatic.activate("click", {"report export": table}, ann) is None
    assert run(program(), "report export") == [0]
    assert events(inspector) == [("exports", "ann")]
    expected = {"feature_name": "exports", "feature_type": "core", "action": "run", "interface": "cli", "a": 1}
    assert inspector.items()[0]["properties"] == expected
    assert "'capture', which only functions have" in caplog.text


def test_faults_are_reasons() -> None:
    """A name without an integration, and a mistake in the settings, are told and raise nothing."""
    assert _automatic.activate("flusk", {}) == "there is no integration 'flusk'"
    reason = _automatic.activate("flask", {"GET /reports": {"feature": "x", "feature_type": "wrong"}})
    assert reason is not None
    assert reason.startswith("ValueError")
    assert _automatic.activate("flask", {}) == reason
