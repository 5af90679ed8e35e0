"""The examples of FastAPI and Flask run under their servers, and their events arrive."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from tests.integrations.load import ROOT, free_port, running

if TYPE_CHECKING:
    from tests.conftest import Inspector

EXAMPLES = ROOT / "examples"
SERVERS = {
    "fastapi_app": "uvicorn --app-dir {folder} --port {port} --log-level error app:app",
    "flask_app": "gunicorn --chdir {folder} --threads 4 -b 127.0.0.1:{port} app:app",
}


@pytest.mark.parametrize("example", SERVERS)
def test_example_is_short(example: str) -> None:
    """The application has less than 60 lines."""
    assert len((EXAMPLES / example / "app.py").read_text().splitlines()) < 60


@pytest.mark.slow
@pytest.mark.parametrize("example", SERVERS)
def test_example_s_events_arrive(inspector: Inspector, example: str) -> None:
    """Each use arrives with user and account; answers of 401 and 404 are no uses."""
    port = free_port()
    server = [word.format(folder=EXAMPLES / example, port=port) for word in SERVERS[example].split()]
    with running(server, port, THRIVESTACK_ENDPOINT=inspector.endpoint):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        statuses = []
        for method, path, token in (
            *(("GET", "/dashboard", "ann-token"), ("GET", "/dashboard", "")),
            *(("GET", "/reports/2", "bob-token"), ("GET", "/reports/3", "bob-token")),
            ("POST", "/reports/1/export", "ann-token"),
        ):
            connection.request(method, path, headers={"Authorization": token})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()
    assert statuses == [200, 401, 200, 404, 200]
    found = {
        (item["properties"]["feature_name"], item["user_id"], item["context"]["group_id"]) for item in inspector.items()
    }
    assert found == {
        ("analytics_dashboard", "ann", "acme"),
        ("report_view", "bob", "globex"),
        ("report_export", "ann", "acme"),
        ("row_stream", "ann", "acme"),
    }
    assert len(inspector.items()) == 4
