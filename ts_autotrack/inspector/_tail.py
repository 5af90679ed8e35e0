"""A live table of entries in the terminal, read from the stream of a running inspector."""

from __future__ import annotations

import http.client
import json
import os
import sys
import time
import unicodedata
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.contract import INSPECTOR
from ts_autotrack._core.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

HISTORY = 20
"""Earlier entries shown at the start."""
RETRY = 0.5
"""Seconds between two attempts to reach an inspector that has gone."""
SILENCE = 30.0
"""Seconds without a message after which the connection counts as lost."""
TIMEOUT = 2.0
"""Seconds to wait for the answer of an inspector that may not run."""
_TIME, _STATUS, _LEAST = 12, 8, 60
_PIPE = 160
"""Columns of a table that is written to a file or a pipe."""
_HEAD, _RED, _DIM, _END = "\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def is_inspector(host: str, port: int) -> bool:
    """Return True if an inspector answers on a port."""
    try:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        try:
            connection.request("GET", "/counts")
            return connection.getresponse().getheader(INSPECTOR) is not None
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def tail(host: str, port: int, *, beside: bool = False) -> None:
    """Print a table of entries as they arrive, until interrupted or until standard output is closed.

    After an interruption, such as the inspector's restart, the table goes on after the last entry shown.

    Args:
        host: Host of the inspector.
        port: Port of the inspector.
        beside: True if the inspector runs in this process, and needs no message about its end.
    """
    table, stream, lost = _Table(), _Stream(host, port), False
    while True:
        try:
            for event, data in stream.messages():
                lost = False
                table.show(event, data)
        except BrokenPipeError:  # `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        except (OSError, http.client.HTTPException):
            pass
        if not (lost or beside):
            print(f"the inspector on port {port} does not answer; waiting for it", file=sys.stderr)
        lost = True
        time.sleep(RETRY)


class _Stream:
    """The stream of an inspector, which goes on after the last message when it is read again."""

    def __init__(self, host: str, port: int) -> None:
        self._connect = partial(http.client.HTTPConnection, host, port, timeout=SILENCE)
        self._last_id = ""

    def messages(self) -> Iterator[tuple[str, Any]]:
        """Yield the event and the data of each message: the latest entries first, then new ones."""
        connection = self._connect()
        try:
            if not self._last_id:
                connection.request("GET", f"/entries?limit={HISTORY}")
                found = json.load(connection.getresponse())
                self._last_id = f"{found['store']}-{found['last_id']}"
                yield "batch", found["entries"][::-1]
            connection.request("GET", "/stream", headers={"Last-Event-ID": self._last_id})
            event = last_id = ""
            for line in connection.getresponse():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, json.loads(value)
                    self._last_id = last_id
                elif name == "id":
                    last_id = value
        finally:
            connection.close()


class _Table:
    """Rows of entries, as wide as the terminal: a change of its size holds from the next row on."""

    def __init__(self) -> None:
        self._width = 0
        self._styled = sys.stdout.isatty()

    def show(self, event: str, data: Any) -> None:
        """Print one message of the stream."""
        if event in ("item", "refused"):
            self._row(data)
        elif event == "batch":
            for entry in data:
                self._row(entry)
        elif event == "cleared":
            self._print(_DIM, "-- all entries were deleted --")
        elif event == "faults" and data["faults"]:
            self._print(_RED, f"-- faults: {', '.join(map(_fault, data['faults']))} --")
        sys.stdout.flush()

    def _row(self, entry: dict[str, Any]) -> None:
        at = datetime.fromisoformat(entry["received_at"].replace("Z", "+00:00")).astimezone()
        refused = entry["kind"] == "refused"
        field = f"{entry['field']}: " if entry["field"] else ""
        notes = "; ".join(f"{note['field']} {note['text']}" for note in entry["notes"])
        marks = ["duplicate"] * bool(entry["duplicate_of"]) + ["out of order"] * entry["out_of_order"]
        detail = field + entry["reason"] if refused else "; ".join([*marks, *filter(None, [notes])])
        user, account = entry["user_id"] or "-", entry["group_id"] or "-"
        line = (f"{at:%H:%M:%S.%f}"[:_TIME], entry["feature"], user, account, entry["kind"], detail)
        self._head()
        self._print(_RED if refused else "", self._line(*line))

    def _head(self) -> None:
        """Print the names of the columns at the start, and after a change of the terminal's size."""
        # The terminal itself is asked: the variable COLUMNS would be out of date after a change of the size.
        width = max(_LEAST, os.get_terminal_size(sys.stdout.fileno()).columns) if self._styled else _PIPE
        if width != self._width:
            self._width = width
            self._print(_HEAD, self._line("time", "feature", "user", "account", "status", "remarks"))

    def _line(self, time: str, feature: str, user: str, account: str, status: str, remarks: str) -> str:
        free = self._width - _TIME - _STATUS - 5
        widths = (_TIME, free * 3 // 10, free * 2 // 10, free * 2 // 10, _STATUS)
        cells = [_fit(text, width) for text, width in zip((time, feature, user, account, status), widths, strict=True)]
        return " ".join([*cells, _fit(remarks, free - sum(widths[1:4])) if self._styled else _shown(remarks)]).rstrip()

    def _print(self, style: str, text: str) -> None:
        print(f"{style}{text}{_END}" if style and self._styled else text)


def _shown(text: str) -> str:
    """Return a text in one line, with escapes instead of characters that the output's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


def _fit(text: str, width: int) -> str:
    """Return a text of `width` columns."""
    shown = _shown(text[:width])
    if len(text) > width or _columns(shown) > width:
        shown = shown[:width]
        while _columns(shown) >= width:
            shown = shown[:-1]
        shown += "~"
    return shown + " " * (width - _columns(shown))


def _columns(text: str) -> int:
    """Return the columns of a text in a terminal: letters of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "FW" else 1 for letter in text)


def _fault(fault: dict[str, Any]) -> str:
    probability = "" if fault["probability"] == 1 else f":{fault['probability']}"
    return _shown(fault["kind"] + probability + (f"={fault['text']}" if fault["text"] else ""))
