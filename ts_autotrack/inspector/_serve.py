"""Runs the inspector on the loopback address."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
import threading
import webbrowser
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from ts_autotrack._core.redaction import printable
from ts_autotrack.inspector._app import Inspector
from ts_autotrack.inspector._tail import is_inspector, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ts_autotrack.inspector._fault import Fault

HOST = "127.0.0.1"
PATIENCE = 1.0
"""Seconds for open requests after the signal to end; then their connections are closed."""


def serve(
    port: int,
    database: str,
    *,
    quiet: bool = False,
    faults: Sequence[Fault] = (),
    table: bool = False,
    browser: bool = False,
) -> None:
    """Serve until interrupted. With `table` or `browser`, show the inspector that runs on the port already, if any.

    Args:
        port: TCP port; 0 takes a free port.
        database: Path of the SQLite file for events, or ":memory:".
        quiet: Print the first lines only, without events.
        faults: Faults active from the start.
        table: Print events as a table.
        browser: Open the page in the browser.

    Raises:
        OSError: If the port is taken.
        sqlite3.Error: If the file is another program's, belongs to another inspector, or cannot be written.
    """
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not (table or browser) or not is_inspector(HOST, port):
            raise
        _show_running(port, table=table, browser=browser)
        return
    with listener:
        port = listener.getsockname()[1]
        url = f"http://{HOST}:{port}"
        inspector = Inspector(database, None if quiet or table else _show, faults)
        print(f"ts-autotrack inspector on {url} (events: {url}/events, database: {database})")
        print(f"export THRIVESTACK_ENDPOINT={url}/api", flush=True)
        if browser:
            _in_background(partial(webbrowser.open, url))
        if table:
            _in_background(partial(tail, HOST, port, beside=True))
        config = uvicorn.Config(inspector, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        _Server(config, inspector).run(sockets=[listener])


def _show_running(port: int, *, table: bool, browser: bool) -> None:
    print(f"an inspector runs on http://{HOST}:{port} already; this command shows it", file=sys.stderr)
    if browser:
        webbrowser.open(f"http://{HOST}:{port}")
    if table:
        tail(HOST, port)


def _in_background(function: Callable[[], object]) -> None:
    """Call a function beside the server: the function waits for the server's answers."""
    threading.Thread(target=function, daemon=True).start()


class _Server(uvicorn.Server):
    """Ends the streams of readers first, as these would otherwise hold up the end until the timeout."""

    def __init__(self, config: uvicorn.Config, inspector: Inspector) -> None:
        super().__init__(config)
        self._inspector = inspector

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams and all else. Readers that do not read, and requests hit by `hang`, are cut off."""
        self._inspector.end_streams()
        cut_off = asyncio.get_running_loop().call_later(PATIENCE, self._abort)
        await super().shutdown(sockets)
        cut_off.cancel()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def _show(text: str) -> None:
    """Print a line. A closed or broken standard output is ignored: the inspector keeps events all the same."""
    encoding = sys.stdout.encoding or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)
