"""Runs the inspector on the loopback address."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from ts_autotrack._core.redaction import printable
from ts_autotrack.inspector._app import Inspector

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
        inspector = Inspector(database, None if quiet else _show, faults)
        config = uvicorn.Config(inspector, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        _Server(config, inspector).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends the streams of readers first, as these would otherwise hold up the end until the timeout."""

    def __init__(self, config: uvicorn.Config, inspector: Inspector) -> None:
        super().__init__(config)
        self._inspector = inspector

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams and all else."""
        self._inspector.end_streams()
        await super().shutdown(sockets)


def _show(text: str) -> None:
    """Print a line. A closed or broken standard output is ignored: the inspector keeps events all the same."""
    encoding = sys.stdout.encoding or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        print(printable(text).encode(encoding, "backslashreplace").decode(encoding), flush=True)
