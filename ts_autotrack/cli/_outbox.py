"""`ts-autotrack outbox`: what waits in an outbox, and what the server has refused; works while processes use it."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import sys
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack._core.config import load
from ts_autotrack._core.outbox.file import EVENT_PAGE, SEPARATOR, NewerSchemaError, OutboxFile, contents
from ts_autotrack._core.outbox.paths import files, size_of
from ts_autotrack._core.outbox.quarantine import Quarantine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from ts_autotrack.typing import RejectedItem


LOCK_TIMEOUT = 5.0
"""Seconds to wait for a process that uses the quarantine."""
MOST_COPIES = 10
"""Attempts to copy a file while a busy process is writing to it."""


class _Found(NamedTuple):
    """One process's file."""

    path: str
    in_use: bool
    events: int
    problem: str = ""


def add_outbox(commands: Any) -> None:
    """Add the command and its parts to the parser's commands."""
    outbox = commands.add_parser(
        "outbox",
        help="look at an outbox, and at what the server has refused",
        description="Works on the outbox of running processes, too. The directory is that of TS_AUTOTRACK_OUTBOX or "
        "[tool.ts_autotrack] in pyproject.toml, unless --directory names one.",
    )
    parts = outbox.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("status", _status, "how many events wait, in whose files, and how many the server has refused"),
        ("list", _list, "the refused items, with the server's words"),
        ("retry", _retry, "have refused items sent again, by a process that uses the outbox"),
        ("export", _export, "print refused items as JSON lines"),
        ("purge", _purge, "delete refused items for good"),
    ):
        part = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        part.add_argument("--directory", metavar="PATH", help="default: the setting OUTBOX")
        if name in ("retry", "export", "purge"):
            part.add_argument("ids", nargs="*", type=int, metavar="ID", help="as `list` shows them; default: all")
        if name == "purge":
            part.add_argument("--all", action="store_true", help="delete all of them")
        if name == "export":
            part.add_argument("--pending", action="store_true", help="the events that wait instead")
        part.set_defaults(run=_guarded(name, run))


def _guarded(name: str, run: Callable[[str, argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    def command(options: argparse.Namespace) -> int:
        directory = options.directory or load({}).outbox.directory
        if not directory or not Path(directory).is_dir():
            why = f"there is no directory {directory}" if directory else "set TS_AUTOTRACK_OUTBOX or give --directory"
            return _complain(name, why)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal in ASCII shows what it can
        try:
            return run(str(directory), options)
        except BrokenPipeError:  # `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (OSError, sqlite3.Error) as error:
            return _complain(name, str(error))

    return command


def _status(directory: str, _: argparse.Namespace) -> int:
    found = [file for path in files(directory) if (file := _look(path))]
    rejected = sum(1 for _ in _quarantine(directory).items())
    print(f"{directory}: waiting {sum(file.events for file in found)}, refused {rejected}")
    for file in found:
        owner = "in use" if file.in_use else "its process has ended"
        size = size_of(file.path) + size_of(f"{file.path}-wal")
        print(f"  {Path(file.path).name}  {file.problem or f'waiting {file.events}'}  {size} bytes  {owner}")
    for path in sorted(Path(directory).glob("*.corrupt")):
        print(f"  {path.name}  set aside: cannot be read")
    return 0


def _list(directory: str, _: argparse.Namespace) -> int:
    for number, rejected in list(_quarantine(directory).items()):  # not while it is open: a pager may hold us up
        what, who = _about(rejected)
        print(_on_one_line(f"{number}  {rejected.rejected_at}  {what}  user={who}  {rejected.reason}"))
    return 0


def _about(rejected: RejectedItem) -> tuple[object, object]:
    try:
        item = json.loads(rejected.item)
        return item.get("event_name") or rejected.path.removeprefix("/"), item.get("user_id")
    except (ValueError, AttributeError):  # damaged on the disk
        return rejected.path.removeprefix("/"), None


def _on_one_line(text: str) -> str:
    """Return a text without what would move the cursor: a server's words are anybody's."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _export(directory: str, options: argparse.Namespace) -> int:
    if options.pending:
        return max([_export_pending(path) for path in files(directory)], default=0)
    for number, rejected in _chosen(directory, options.ids):
        about = {"id": number, **rejected._asdict()}
        del about["item"]
        _print_json(about, rejected.item)
    return 0


def _export_pending(path: str) -> int:
    try:
        with _readable(path) as database:
            if contents(database)[0]:
                for kind, body in database.execute("SELECT path, body FROM chunks ORDER BY id"):
                    for item in body.decode().split(SEPARATOR.decode()):
                        _print_json({"path": kind}, item)
    except FileNotFoundError:  # its process has delivered all of it meanwhile
        return 0
    except NewerSchemaError:
        return _complain("export", f"{path} was written by a later version; it is left out")
    except (ValueError, AttributeError, sqlite3.Error) as error:
        return _complain("export", f"{path} cannot be read ({error}); it is left out")
    return 0


def _complain(name: str, why: str) -> int:
    print(f"ts-autotrack outbox {name}: {why}", file=sys.stderr)
    return 1


def _print_json(about: dict[str, object], item: str) -> None:
    """Print a line with the item as it was sent, to the last digit."""
    print(f'{json.dumps(about)[:-1]}, "item": {item}}}')


def _retry(directory: str, options: argparse.Namespace) -> int:
    chosen = _chosen(directory, options.ids)
    if chosen:
        file = OutboxFile.create(directory, page=EVENT_PAGE)
        try:
            file.append([(rejected.path, rejected.item.encode(), 0) for _, rejected in chosen])
            _quarantine(directory).remove([number for number, _ in chosen])
        finally:
            file.close()  # only now can a process adopt it
    print(f"{len(chosen)} items wait for a process that uses this outbox")
    return 0


def _purge(directory: str, options: argparse.Namespace) -> int:
    if bool(options.ids) is options.all:
        print("ts-autotrack outbox purge: name the ids, or say --all", file=sys.stderr)
        return 2
    chosen = _chosen(directory, options.ids)
    if chosen:
        _quarantine(directory).remove([number for number, _ in chosen])
    print(f"{len(chosen)} items deleted")
    return 0


def _quarantine(directory: str) -> Quarantine:
    return Quarantine(directory, LOCK_TIMEOUT)


def _chosen(directory: str, ids: list[int]) -> list[tuple[int, RejectedItem]]:
    chosen = list(_quarantine(directory).items(ids))
    if unknown := set(ids) - {number for number, _ in chosen}:
        message = f"there is no refused item {min(unknown)}"
        raise OSError(message)
    return chosen


def _look(path: str) -> _Found | None:
    try:
        with _readable(path) as database:
            return _Found(path, _in_use(path), contents(database)[0])
    except FileNotFoundError:  # its process has delivered all of it meanwhile
        return None
    except NewerSchemaError:
        return _Found(path, _in_use(path), 0, "of a later version")
    except (OSError, sqlite3.Error) as error:
        return _Found(path, in_use=False, events=0, problem=str(error)) if Path(path).exists() else None


def _in_use(path: str) -> bool:
    with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", timeout=0, uri=True)) as database:
        try:
            database.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError as error:
            return "locked" in str(error)
    return False


@contextmanager
def _readable(path: str) -> Iterator[sqlite3.Connection]:
    """Open a copy: the file itself belongs to a process.

    The log first: what a checkpoint moves meanwhile is in both. Unless the log has changed, too: then it would put old
    pages over newer ones, so both are copied once more.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy, log = Path(scratch), Path(f"{path}-wal")
        for attempt in range(MOST_COPIES):
            copy, before = Path(scratch) / str(attempt), _state(log)
            if before is not None:
                copyfile(log, f"{copy}-wal")
            copyfile(path, copy)
            if _state(log) == before:
                break
        with closing(sqlite3.connect(copy)) as database:
            yield database


def _state(log: Path) -> tuple[bytes, int] | None:
    """Return what tells whether a log has begun anew: its header, with a salt that changes then, and its length."""
    try:
        with log.open("rb") as file:
            return file.read(32), log.stat().st_size
    except FileNotFoundError:
        return None
