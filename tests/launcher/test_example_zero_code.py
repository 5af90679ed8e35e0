"""The example of an application without code for tracking: its events arrive, by README's command."""

from __future__ import annotations

import http.client
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import wait_until
from tests.integrations.load import free_port
from tests.launcher.launched import RUN, environment, serving

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from tests.conftest import Inspector

EXAMPLE = Path(__file__).parents[2] / "examples" / "zero_code"
README = (EXAMPLE / "README.md").read_text()
REQUESTS = re.findall(
    r"^\$ curl (?:-H 'Authorization: ([a-z-]+)' )?(?:-X (POST) )?http://[^/]+(/\S+)\n(.+)", README, re.MULTILINE
)


def test_application_does_not_know_the_library() -> None:
    """No module of the example imports the library, and README shows the settings file as it is."""
    for path in EXAMPLE.glob("*.py"):
        assert not re.search(r"^\s*(import|from) ts_autotrack", path.read_text(), re.MULTILINE)
    shown = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert tomllib.loads(shown[1]) == tomllib.loads((EXAMPLE / "ts_autotrack.toml").read_text())


def test_events_arrive(inspector: Inspector, tmp_path: Path) -> None:
    """README's requests get README's answers, and README's events arrive, once each, on each Python."""
    port = free_port()
    server = [*RUN, "gunicorn", "-b", f"127.0.0.1:{port}", "app:app"]
    assert len(REQUESTS) == 5
    with serving(server, environment(inspector), port, tmp_path / "output", EXAMPLE):
        for token, method, path, body in REQUESTS:
            assert _answer(port, token, method or "GET", path) == body
        wait_until(lambda: len(inspector.items()) >= 3, "three events")
    shown = re.findall(r'user=(\w+) group=(\w+) \{"feature_name": "(\w+)"', README)
    items = inspector.items()
    assert [
        (item["user_id"], item["context"]["group_id"], item["properties"]["feature_name"]) for item in items
    ] == shown
    assert items[1]["properties"]["file_format"] == "csv"


def _answer(port: int, token: str, method: str, path: str) -> str:
    """Return the body of an answer, of whichever status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers={"Authorization": token} if token else {})
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()
