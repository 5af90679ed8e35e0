"""Parses the command line and runs one command."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ts_autotrack._version import __version__
from ts_autotrack.cli._outbox import add_outbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.inspector._fault import Fault

DEFAULT_PORT = 8787
MAX_PORT = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ts-autotrack` and return its exit status.

    Args:
        arguments: What follows the command's name; default: `sys.argv[1:]`.
    """
    options = _parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ts-autotrack", description="Product-usage events for ThriveStack.")
    parser.add_argument("--version", action="version", version=f"ts-autotrack {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect",
        help="serve ThriveStack's contract on this machine and show what arrives",
        description="Serves /track, /identify and /group on 127.0.0.1, strict to ThriveStack's contract; prints each "
        "event as it arrives and answers GET /events. Point an app at it with THRIVESTACK_ENDPOINT.",
    )
    inspect.add_argument("--port", type=_port, default=DEFAULT_PORT, help="default: %(default)s; 0 takes a free one")
    inspect.add_argument("--db", default=":memory:", metavar="PATH", help="SQLite file to keep events in")
    inspect.add_argument("--quiet", action="store_true", help="do not print each event")
    inspect.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="KIND[:PROBABILITY][=TEXT]",
        help="rehearse an outage: answer with an HTTP status, or reset, lose the answer (lost), hang, be slow, or "
        "show a login page (html); 503, reset:0.3, 400=poison. PUT /faults?fault=... changes it on the way",
    )
    inspect.set_defaults(run=_inspect)
    add_outbox(commands)
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= MAX_PORT):
        message = f"a port is a whole number from 0 to {MAX_PORT}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _fault(text: str) -> Fault:
    from ts_autotrack.inspector._fault import parse

    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _inspect(options: argparse.Namespace) -> int:
    try:
        from ts_autotrack.inspector._serve import serve
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is missing: pip install 'ts_autotrack[inspector]'")
    import sqlite3

    try:
        serve(options.port, options.db, quiet=options.quiet, faults=options.fault)
    except OSError as error:
        return _complain(f"cannot listen on port {options.port}: {error.strerror}")
    except sqlite3.Error as error:
        return _complain(f"cannot keep events in {options.db}: {error}")
    except KeyboardInterrupt:  # how one ends it
        pass
    return 0


def _complain(why: str) -> int:
    print(f"ts-autotrack inspect: {why}", file=sys.stderr)
    return 1
