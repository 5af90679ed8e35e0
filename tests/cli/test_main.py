"""Errors of the command line are explained in a line."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_command_says_what_is_wrong(tmp_path: Path) -> None:
    """A taken port and a bad file are explained in a line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for options, message in (
            (["--port", port], f"cannot listen on port {port}: Address already in use"),
            (["--port", "0", "--db", str(tmp_path)], "cannot keep events in"),
            (["--port", "70000"], "a port is a whole number from 0 to 65535"),
        ):
            command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", *options]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            assert done.returncode != 0
            assert message in done.stderr
            assert "Traceback" not in done.stderr


def test_missing_extra_is_named() -> None:
    """Without Starlette, the command names the packages to install."""
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from ts_autotrack.cli import main; sys.exit(main(['inspect', '--port', '0']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'ts_autotrack[inspector]'" in done.stderr
