"""Events of web servers below `ts-autotrack run`, in their workers, reloaders and forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import wait_until
from tests.integrations.load import free_port
from tests.launcher.launched import RUN, environment, get, serving, users

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "server",
    [
        "gunicorn -b 127.0.0.1:{port} -w 2 web:wsgi",
        "gunicorn -b 127.0.0.1:{port} -w 2 --preload web:wsgi",
        "gunicorn -b 127.0.0.1:{port} -k gevent web:wsgi",
        "uvicorn --port {port} web:asgi",
        "uvicorn --port {port} --reload web:asgi",
        "uvicorn --port {port} --workers 2 web:asgi",
        "python manage.py runserver {port}",
        "opentelemetry-instrument gunicorn -b 127.0.0.1:{port} web:wsgi",
    ],
)
def test_server_is_tracked(inspector: Inspector, tmp_path: Path, server: str) -> None:
    """Each call of the function that the settings file names arrives once, with its user, without a warning."""
    port = free_port()
    output = tmp_path / "output"
    with serving([*RUN, *server.format(port=port).split()], environment(inspector), port, output):
        for number in range(4):
            get(port, str(number))
        wait_until(lambda: len(users(inspector)) >= 4, f"four events of {server}")
    assert users(inspector) == ["user-0", "user-1", "user-2", "user-3"]
    assert "ts_autotrack" not in output.read_text()
    assert "Warning" not in output.read_text()
