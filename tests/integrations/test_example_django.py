"""The Django example runs under its server, and its events arrive."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.integrations.load import ROOT, free_port, running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Inspector

EXAMPLE = ROOT / "examples" / "django_app"


def manage(command: str, database: Path) -> str:
    """Run a command of the example, as `manage.py` does; return the output."""
    environment = {**os.environ, "DATABASE": str(database), "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, str(EXAMPLE / "app.py"), command]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_example_is_short() -> None:
    """The application has less than 60 lines."""
    assert len((EXAMPLE / "app.py").read_text().splitlines()) < 60


def test_example_has_no_mistake(tmp_path: Path) -> None:
    """`manage.py check` finds nothing."""
    assert "no issues" in manage("check", tmp_path / "example.db")


@pytest.mark.slow
def test_example_s_events_arrive(inspector: Inspector, tmp_path: Path) -> None:
    """Each use arrives with user and account; answers of 404 and anonymous requests are no uses."""
    manage("migrate", tmp_path / "example.db")
    port = free_port()
    server = ["gunicorn", "--chdir", str(EXAMPLE), "--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    settings = {"THRIVESTACK_ENDPOINT": inspector.endpoint, "DATABASE": str(tmp_path / "example.db")}
    with running([*server, "app:application"], port, **settings):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        cookie, statuses = "", []
        for method, path in (
            *(("GET", "/reports/1"), ("GET", "/sign-in/ann")),
            *(("GET", "/reports/2"), ("GET", "/reports/3"), ("POST", "/reports/1/export")),
        ):
            connection.request(method, path, headers={"Cookie": cookie})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            cookie = answer.headers.get("Set-Cookie", cookie).partition(";")[0]
        connection.close()
    assert statuses == [200, 200, 200, 404, 200]
    found = [
        (item["properties"]["feature_name"], item["user_id"], item["context"]["group_id"]) for item in inspector.items()
    ]
    assert sorted(found) == [("report_export", "1", "acme"), ("report_view", "1", "acme"), ("sign_in", "1", "acme")]
