"""Examples run as README says, the events match the vendor's document, and README's tables match their sources."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import ts_autotrack
from tests.benchmarks.__main__ import committed_table as benchmark_table
from tests.conftest import run_python
from tests.faults.__main__ import committed_table as fault_table

if TYPE_CHECKING:
    from tests.conftest import Inspector

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text()

# The payload in ThriveStack's document on custom events, copied without changes.
SEED = """
[
  {
      "event_name": "[Your Custom Event]",
      "properties": {
          "user_email": "JaneDoe@example.com",
          "action": "clicked_button",
          "feature_name": "analytics_dashboard",
          "subscription_type": "premium"
      },
      "user_id": "user_123",
      "timestamp": "2024-10-20T15:51:36.514000Z",
      "context": {
          "group_id": "account_456",
          "device_type": "mobile",
          "location": "New York, USA",
          "referrer": "email_campaign"
      }
  }
]
"""

COUNTED = 8 if hasattr(sys, "monitoring") else 17
"""Events of the quickstart while the library is off: calls of watched functions are not counted then."""


def run(name: str, *, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a user would, and check the exit status."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    command = [sys.executable, str(EXAMPLES / name)]
    done = subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done


def test_custom_event_equals_the_payload_of_the_vendors_document(inspector: Inspector) -> None:
    """The item has every field and value of the vendor's document; only source and event id are added."""
    assert run("custom_event.py", THRIVESTACK_ENDPOINT=inspector.endpoint).stdout == "delivered\n"
    (item,), (seed,) = inspector.items(), json.loads(SEED)
    for field in ("event_name", "properties", "user_id", "timestamp"):
        assert item[field] == seed[field], field
    for key, value in seed["context"].items():
        assert item["context"][key] == value, key
    assert set(item) == set(seed)
    assert set(item["context"]) - set(seed["context"]) == {"source", "event_id"}


def test_quickstart_starts_an_inspector_and_shows_the_features_used() -> None:
    """Without an endpoint the example starts an inspector; the failing and the unattributed call do not count."""
    done = run("quickstart.py")
    rows = dict(re.findall(r"^(\S+ +\S+) +(\d+)$", done.stdout, re.MULTILINE))
    used = {tuple(key.split()): int(count) for key, count in rows.items()}
    assert used == {
        **{
            ("acme", name): 2
            for name in ("analytics_dashboard", "bulk_import", "report_export", "report_search", "row_stream")
        },
        **{
            ("globex", name): 1
            for name in ("analytics_dashboard", "bulk_import", "report_export", "report_search", "row_stream")
        },
        ("globex", "invite_sent"): 1,
    }
    assert "accepted=17, delivered=16, pending=0, rejected=0, dropped={'unattributed': 1}" in done.stdout
    assert "with user_context(user_id, group_id=...)" in done.stderr


def test_quickstart_sends_to_a_given_endpoint(inspector: Inspector) -> None:
    """With an endpoint set, the example starts no inspector."""
    done = run("quickstart.py", THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert "delivered=16" in done.stdout
    assert len(inspector.items()) == 16


@pytest.mark.parametrize(
    "settings",
    [
        {"THRIVESTACK_ENDPOINT": "https://192.0.2.1/api"},
        {"THRIVESTACK_ENDPOINT": "nonsense"},
        {"THRIVESTACK_ENDPOINT": "http://127.0.0.1:8787", "TS_AUTOTRACK_DISABLED": "1"},
    ],
)
def test_examples_say_so_when_nothing_was_delivered(settings: dict[str, str]) -> None:
    """Without a key, with a bad endpoint or a library that is off, the examples fail and say that nothing arrived."""
    done = run("custom_event.py", status=1, **settings)
    assert (done.stdout, "not delivered: Stats(accepted=1, delivered=0" in done.stderr) == ("", True)
    done = run("quickstart.py", status=1, **settings)
    assert f"{COUNTED} of {COUNTED} events did not arrive" in done.stderr


def test_quickstart_without_its_server(inspector: Inspector) -> None:
    """If the server refuses all events, the example fails and gives the number; so it does if events stay here."""
    httpx.put(f"{inspector.url}/faults?fault=400")
    try:
        done = run("quickstart.py", status=1, THRIVESTACK_ENDPOINT=inspector.endpoint)
        refused = run("custom_event.py", status=1, THRIVESTACK_ENDPOINT=inspector.endpoint)
    finally:
        httpx.put(f"{inspector.url}/faults")
    assert "16 of 17 events did not arrive" in done.stderr
    assert "not delivered: Stats(accepted=1, delivered=0, pending=0, rejected=1" in refused.stderr
    done = run("quickstart.py", status=1, TS_AUTOTRACK_EXPORTER="console")
    assert "16 of 17 events did not arrive" in done.stderr


def section(heading: str) -> str:
    """Return the text of one section of README."""
    return re.split(r"^#+ .*\n", README.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def table_rows(text: str) -> list[str]:
    """Return the lines of all tables in a text."""
    return [line for line in text.splitlines() if line.startswith("|")]


def test_readme_is_short() -> None:
    """README has at most 250 lines; long tables stand beside the tests that make them."""
    assert len(README.splitlines()) <= 250


def test_first_example_of_readme_prints_the_line_below() -> None:
    """The first example runs as shown; the output differs in the timestamp only."""
    code = README.partition("```python\n")[2].partition("```")[0]
    shown = README.partition("python app.py\n")[2].partition("```")[0]
    done = run_python(code, TS_AUTOTRACK_EXPORTER="console")
    moment = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
    assert moment.sub("MOMENT", done.stderr) == moment.sub("MOMENT", shown)


def test_python_code_in_readme_compiles() -> None:
    """Every Python block of README is valid Python."""
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(code, "README.md", "exec")


@pytest.mark.parametrize(("heading", "table"), [("Faults", fault_table()), ("Cost", benchmark_table("peers"))])
def test_rows_quoted_in_readme_are_rows_of_the_generated_tables(heading: str, table: str) -> None:
    """README quotes a few rows of the fault table and of the benchmark; each occurs literally in the source."""
    quoted = table_rows(section(heading))
    assert len(quoted) > 5
    assert [row for row in quoted if row not in table.splitlines()] == []


def test_settings_in_readme_are_the_arguments_of_configure() -> None:
    """The settings table has one row per argument of configure(), in the same order."""
    rows = re.findall(r"^\| `(\w+)` \| `[A-Z_]+` \|", section("Settings"), re.MULTILINE)
    assert rows == list(inspect.signature(ts_autotrack.configure).parameters)


def test_links_in_readme_lead_to_files_and_headings() -> None:
    """Every relative link of README names an existing file, and a heading of that file."""
    for path, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", README):
        text = (ROOT / (path or "README.md")).read_bytes().decode(errors="replace")
        headings = [line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")]
        assert not heading or heading in headings, f"{path}#{heading}"
