"""A real Redis for the tests of task queues: Debian's redis-server, without persistence, on a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.integrations.load import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = Path(tempfile.gettempdir()) / f"ts_autotrack_tests_redis_{os.getuid()}"
"""Folder of the unpacked packages, kept for later runs."""
PACKAGES = (
    "redis-server",
    "redis-tools",
    "libatomic1",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "lua-bitop",
    "lua-cjson",
)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[int]:
    """Port of a Redis that runs as long as the test session."""
    program, environment = _installed()
    port = free_port()
    arguments = f"--port {port} --bind 127.0.0.1 --appendonly no --loglevel warning".split()
    with subprocess.Popen([program, *arguments, "--save", ""], env=environment, cwd=tempfile.gettempdir()) as process:

        def answers() -> bool:
            assert process.poll() is None, f"redis-server ended with {process.returncode}"
            return _ask(port, "PING") == b"+PONG\r\n"

        try:
            wait_until(answers, "redis-server answers", 30)
            yield port
        finally:
            process.terminate()


@pytest.fixture
def redis_url(redis_server: int) -> str:
    """URL of an empty Redis."""
    assert _ask(redis_server, "FLUSHALL") == b"+OK\r\n"
    return f"redis://127.0.0.1:{redis_server}/0"


def _ask(port: int, command: str) -> bytes:
    """Return the server's answer to a command without arguments; nothing if the server does not listen."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(100)
    except OSError:
        return b""


def _installed() -> tuple[str, dict[str, str]]:
    """Return the program and its environment; the test is skipped without one."""
    if program := shutil.which("redis-server"):
        return program, dict(os.environ)
    if not CACHE.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            pytest.skip("redis-server is not installed, and apt-get and dpkg are missing")
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
            _download(Path(folder))
            try:
                (Path(folder) / "root").rename(CACHE)
            except OSError:  # another test process was first
                assert CACHE.exists()
    libraries = [str(path) for path in CACHE.glob("usr/lib/*-linux-*")]
    return str(CACHE / "usr/bin/redis-server"), {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def _download(folder: Path) -> None:
    """Unpack Debian's packages into `folder/root`; skip the test if they cannot be downloaded."""
    done = subprocess.run(
        ["apt-get", "download", *PACKAGES],  # noqa: S607 - found above
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"redis-server is not installed, and cannot be downloaded: {done.stderr.strip()[-200:]}")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)  # noqa: S607 - likewise
