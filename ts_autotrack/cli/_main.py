"""Parses the command line and runs one command."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.redaction import printable
from ts_autotrack._version import __version__
from ts_autotrack.cli._run import add_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.inspector._fault import Fault

DEFAULT_PORT = 8787
"""Port of the inspector."""
MAX_PORT = 65_535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ts-autotrack` and return its exit status.

    Args:
        arguments: Arguments after the name of the command; default: `sys.argv[1:]`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser(words[0] if words else "").parse_args(words)
    status: int = options.run(options)
    return status


def _parser(first: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ts-autotrack", description="Product-usage events for ThriveStack.")
    parser.add_argument("--version", action="version", version=f"ts-autotrack {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_run(commands)
    if first != "run":  # every start of a program pays for the modules that `run` imports
        from ts_autotrack.cli._doctor import add_doctor
        from ts_autotrack.cli._outbox import add_outbox

        _add_inspect(commands)
        add_outbox(commands)
        add_doctor(commands)
    return parser


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="serve ThriveStack's contract on this machine and show received events",
        description="Serves /track, /identify and /group on 127.0.0.1, strict to ThriveStack's contract. Prints each "
        "received event, and shows all of them on a live page: open the address in a browser. Set "
        "THRIVESTACK_ENDPOINT to send the events of an app here.",
    )
    inspect.add_argument("--port", type=_port, default=DEFAULT_PORT, help="default: %(default)s; 0 takes a free port")
    inspect.add_argument("--db", default=":memory:", metavar="PATH", help="SQLite file for events; default: memory")
    inspect.add_argument("--quiet", action="store_true", help="do not print each event")
    inspect.add_argument("--open", action="store_true", help="open the page in the browser")
    inspect.add_argument(
        "--tail",
        action="store_true",
        help="print events as a table. --tail and --open show the inspector that runs on the port already, if any",
    )
    inspect.add_argument(
        "--fault",
        action="append",
        default=[],
        type=_fault,
        metavar="KIND[:PROBABILITY][=TEXT]",
        help="rehearse an outage. KIND is an HTTP status, reset, lost (the events arrive, the answer does not), hang, "
        "slow or html (a login page); examples: 503, reset:0.3, 400=poison. PUT /faults?fault=... replaces the faults",
    )
    inspect.set_defaults(run=_inspect)


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
    import sqlite3

    try:
        from ts_autotrack.inspector._serve import serve
    except ModuleNotFoundError as error:
        return _complain(f"{error.name} is missing: pip install 'ts_autotrack[inspector]'")
    try:
        serve(
            options.port,
            options.db,
            quiet=options.quiet,
            faults=options.fault,
            table=options.tail,
            browser=options.open,
        )
    except OSError as error:
        return _complain(f"cannot listen on port {options.port}: {error.strerror}")
    except sqlite3.Error as error:
        return _complain(f"cannot keep events in {options.db}: {error}")
    except KeyboardInterrupt:  # the usual end of the command
        pass
    return 0


def _complain(why: str) -> int:
    print(printable(f"ts-autotrack inspect: {why}"), file=sys.stderr)
    return 1
