"""Runs the inspector on the loopback address."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from ts_autotrack._core.redaction import printable
from ts_autotrack.inspector._app import application

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.inspector._fault import Fault

HOST = "127.0.0.1"


def serve(port: int, database: str, *, quiet: bool, faults: Sequence[Fault] = ()) -> None:
    """Serve until interrupted.

    Args:
        port: TCP port; 0 takes a free port.
        database: Path of the SQLite file for events, or ":memory:".
        quiet: Print the first lines only, without events.
        faults: Faults active from the start.

    Raises:
        OSError: If the port is taken.
    """
    with socket.create_server((HOST, port)) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}"
        print(f"ts-autotrack inspector on {url} (events: {url}/events, database: {database})")
        print(f"export THRIVESTACK_ENDPOINT={url}/api", flush=True)
        app = application(database, _ignore if quiet else _show, faults)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


def _show(text: str) -> None:
    """Print a line. A closed or broken standard output is ignored: the inspector keeps events all the same."""
    encoding = sys.stdout.encoding or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)


def _ignore(_: str) -> None:
    pass
