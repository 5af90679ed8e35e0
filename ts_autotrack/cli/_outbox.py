"""`ts-autotrack outbox`: shows waiting and refused events, and resends, exports or deletes refused ones."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.config import load
from ts_autotrack._core.outbox import inspection
from ts_autotrack._core.outbox.inspection import InspectionError
from ts_autotrack._core.outbox.paths import list_files
from ts_autotrack._core.parsers import working_directory
from ts_autotrack._core.redaction import printable, printable_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ts_autotrack.typing import RejectedItem


def add_outbox(commands: Any) -> None:
    """Add the command and its subcommands to the parser's commands."""
    outbox = commands.add_parser(
        "outbox",
        help="show an outbox and the events refused by the server",
        description="Works on the outbox of running processes, too. The directory is that of TS_AUTOTRACK_OUTBOX or of "
        "the nearest settings file (ts_autotrack.toml, or [tool.ts_autotrack] in pyproject.toml), unless "
        "--directory names one.",
    )
    parts = outbox.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("status", _status, "show the number of waiting events by file, and of refused events"),
        ("list", _list, "list the refused events, with the server's words"),
        ("retry", _retry, "resend refused events, through a process that uses the outbox"),
        ("export", _export, "print refused events as JSON lines"),
        ("purge", _purge, "delete refused events for good"),
    ):
        part = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        part.add_argument("--directory", metavar="PATH", help="default: the setting OUTBOX")
        if name in ("retry", "export", "purge"):
            part.add_argument("ids", nargs="*", type=int, metavar="ID", help="as `list` shows them; default: all")
        if name == "purge":
            part.add_argument("--all", action="store_true", help="delete all of them")
        if name == "export":
            part.add_argument("--pending", action="store_true", help="print the waiting events instead")
        part.set_defaults(run=_guarded(name, run))


def _guarded(name: str, run: Callable[[str, argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command that finds the directory, runs `run` and turns exceptions into messages and exit statuses."""

    def command(options: argparse.Namespace) -> int:
        directory = options.directory or load({}, working_directory()).outbox.directory
        if not directory or not Path(directory).is_dir():
            why = f"there is no directory {directory}" if directory else "set TS_AUTOTRACK_OUTBOX or give --directory"
            return _fail(name, why)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # for a terminal in ASCII
        try:
            return run(str(directory), options)
        except BrokenPipeError:  # `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (InspectionError, OSError, sqlite3.Error) as error:
            return _fail(name, str(error))

    return command


def _status(directory: str, _: argparse.Namespace) -> int:
    files = inspection.file_statuses(directory)
    rejected = inspection.rejected_items(directory)
    print(f"{printable(directory)}: waiting {sum(file.pending for file in files)}, refused {len(rejected)}")
    for file in files:
        owner = "in use" if file.in_use else "its process has ended"
        fill = file.problem or f"waiting {file.pending}"
        print(printable(f"  {Path(file.path).name}  {fill}  {file.size} bytes  {owner}"))
    for name in inspection.corrupt_files(directory):
        print(printable(f"  {name}  set aside: cannot be read"))
    return 0


def _list(directory: str, _: argparse.Namespace) -> int:
    for number, rejected in inspection.rejected_items(directory):
        name, user = _name_and_user(rejected)
        print(printable(f"{number}  {rejected.rejected_at}  {name}  user={user}  {rejected.reason}"))
    return 0


def _name_and_user(rejected: RejectedItem) -> tuple[object, object]:
    """Return name and user of an event; the endpoint and None if the JSON is damaged."""
    try:
        item = json.loads(rejected.item)
        return item.get("event_name") or rejected.path.removeprefix("/"), item.get("user_id")
    except (ValueError, AttributeError):  # damaged on the disk
        return rejected.path.removeprefix("/"), None


def _export(directory: str, options: argparse.Namespace) -> int:
    if options.pending:
        return max([_export_pending(path) for path in list_files(directory)], default=0)
    for number, rejected in inspection.rejected_items(directory, options.ids):
        fields = {"id": number, **rejected._asdict()}
        del fields["item"]
        _print_json(fields, rejected.item)
    return 0


def _export_pending(path: str) -> int:
    try:
        for endpoint, item in inspection.pending_items(path):
            _print_json({"path": endpoint}, item)
    except InspectionError as error:
        return _fail("export", str(error))
    return 0


def _print_json(fields: dict[str, object], item: str) -> None:
    """Print one line with the fields and the item, whose text stays as sent, but for control characters."""
    print(printable_json(f'{json.dumps(fields)[:-1]}, "item": {item}}}'))


def _retry(directory: str, options: argparse.Namespace) -> int:
    count = inspection.retry(directory, options.ids)
    print(f"{_items(count)} {'waits' if count == 1 else 'wait'} for a process that uses this outbox")
    return 0


def _purge(directory: str, options: argparse.Namespace) -> int:
    if bool(options.ids) is options.all:
        _fail("purge", "name the ids, or say --all")
        return 2
    print(f"{_items(inspection.purge(directory, options.ids))} deleted")
    return 0


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _fail(name: str, why: str) -> int:
    print(printable(f"ts-autotrack outbox {name}: {why}"), file=sys.stderr)
    return 1
