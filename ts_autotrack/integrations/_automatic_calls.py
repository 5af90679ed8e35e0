"""Automatic integrations of commands, tools, RPCs and GraphQL fields: click, Typer, MCP, gRPC and Strawberry.

An integration that the application adds itself takes the place of the automatic one. Without one, a command or tool
is a feature only if the settings name it: most command lines in an environment, such as those of `flask`, `celery` and
`uvicorn`, are click programs of other people.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ts_autotrack.integrations._named_user import with_argument_later, without_argument
from ts_autotrack.integrations._patches import attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ts_autotrack.integrations._patches import Patches
    from ts_autotrack.typing import Identity

    User = Callable[[], Identity] | None
    Features = Mapping[str, str]

_inside_server: ContextVar[bool] = ContextVar("ts_autotrack_mcp_server", default=False)
"""True while an MCPServer makes its low-level server, which needs no middleware of its own."""


def track_click(patches: Patches, features: Features, user: User) -> None:
    """Track the commands of click that the settings name."""
    from click.core import Command

    owner = next(base for base in Command.__mro__ if "main" in vars(base))  # click 8.1: BaseCommand
    patches.add(owner, "main", _named_commands(features, user))


def track_typer(patches: Patches, features: Features, user: User) -> None:
    """Track the commands of Typer that the settings name."""
    from typer.core import TyperCommand, TyperGroup

    for kind in (TyperCommand, TyperGroup):
        patches.add(kind, "main", _named_commands(features, user))


def _named_commands(features: Features, user: User) -> Any:
    """Return a wrapper of `main` that tracks a program in a run of a command that the settings name."""
    from ts_autotrack.integrations.click import instrument_named, uninstrument_click

    def instrument(command: Any, arguments: Iterable[str] | None) -> bool:
        given = sys.argv[1:] if arguments is None else list(arguments)
        named = not hasattr(command, "_ts_autotrack") and _runs_named(command, given, features)
        if named:
            instrument_named(command, without_argument(user), features)
        return named

    def main(original: Any, command: Any, args: Any, kwargs: Any) -> Any:
        if not features or not attempt("click", instrument, command, args[0] if args else kwargs.get("args")):
            return original(*args, **kwargs)
        try:
            return command.main(*args, **kwargs)  # an instrumented command has a `main` of its own
        finally:
            attempt("click", uninstrument_click, command)  # the next run in this process may be of another command

    return main


def _runs_named(command: Any, arguments: list[str], features: Features) -> bool:
    """Return True if arguments of a program run a command of `features`, as far as this is known before parsing."""
    if not hasattr(command, "resolve_command"):  # a program of one command
        return command.name in features
    path, group = [], command
    for argument in arguments:
        commands = getattr(group, "commands", None) or {}
        if argument in commands:
            path.append(argument)
            group = commands[argument]
    if " ".join(path) in features:
        return True
    return any(_in_order(key.split(), arguments) for key in features) and not path


def _in_order(words: list[str], arguments: list[str]) -> bool:
    """Return True if all words are among the arguments in this order: a command may be loaded when it is called."""
    rest = iter(arguments)
    return all(word in rest for word in words)


def track_mcp(patches: Patches, features: Features, user: User) -> None:
    """Make each call of a tool a request, in new servers of the package mcp."""
    from mcp.server.lowlevel.server import Server
    from mcp.server.mcpserver.server import MCPServer

    from ts_autotrack.integrations.mcp import instrument_named

    ask = with_argument_later(user)

    def make_server(original: Any, server: Any, args: Any, kwargs: Any) -> None:
        token = _inside_server.set(True)
        try:
            original(*args, **kwargs)
        finally:
            _inside_server.reset(token)
        attempt("mcp", instrument_named, server, ask, features)

    def make_low_level(original: Any, server: Any, args: Any, kwargs: Any) -> None:
        original(*args, **kwargs)
        if type(server) is Server and not _inside_server.get():  # FastMCP's own is a subclass
            attempt("mcp", instrument_named, server, ask, features)

    patches.add(MCPServer, "__init__", make_server)
    patches.add(Server, "__init__", make_low_level)


def track_fastmcp(patches: Patches, features: Features, user: User) -> None:
    """Make each call of a tool a request, in new servers of FastMCP."""
    from fastmcp.server.server import FastMCP

    from ts_autotrack.integrations.mcp import instrument_named

    ask = with_argument_later(user)
    patches.after(FastMCP, "__init__", lambda server: instrument_named(server, ask, features))


def track_grpc(patches: Patches, features: Features, user: User) -> None:
    """Give each new server the interceptor, as its first."""
    import grpc
    import grpc.aio

    from ts_autotrack.integrations.grpc import AioTrackingInterceptor, TrackingInterceptor

    for module, kind in ((grpc, TrackingInterceptor), (grpc.aio, AioTrackingInterceptor)):
        kind(None, features)  # a mistake is told now
        patches.add(module, "server", _with_interceptor(kind, features, with_argument_later(user)))


def _with_interceptor(kind: Any, features: Features, ask: Callable[[Any], Any] | None) -> Any:
    """Return a wrapper of `grpc.server`: `interceptors` is its third argument."""

    def server(original: Any, _: object, args: Any, kwargs: Any) -> Any:
        first, rest = args[:2], args[2:]
        given = tuple((rest[0] if rest else kwargs.get("interceptors")) or ())
        if not any(isinstance(interceptor, kind) for interceptor in given):
            given = (kind(ask, features), *given)
        if rest:
            return original(*first, given, *rest[1:], **kwargs)
        return original(*first, **{**kwargs, "interceptors": given})

    return server


def track_strawberry(patches: Patches, features: Features) -> None:
    """Give each new schema an extension for the fields that the settings name and the schema has."""
    from strawberry.schema.schema import Schema

    from ts_autotrack.integrations.strawberry import tracked_fields, tracking_extension

    def add(schema: Any) -> None:
        present = schema.extensions
        known = {field for extension in present for field in tracked_fields(extension)}
        own = {
            key: name
            for key, name in features.items()
            if key not in known and schema.get_type_by_name(key.partition(".")[0]) is not None
        }
        if own:
            schema.extensions = type(present)((tracking_extension(features=own), *present))

    patches.after(Schema, "__init__", add)
