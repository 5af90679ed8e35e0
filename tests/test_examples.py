"""Every example runs as documented in README, and the arrived events match the vendor's document."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Inspector

EXAMPLES = Path(__file__).parent.parent / "examples"

# The payload of ThriveStack's document on custom events, verbatim.
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


def run(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example as a user would."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TS_AUTOTRACK", "THRIVESTACK"))}
    command = [sys.executable, str(EXAMPLES / name)]
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=True)


def test_custom_event_is_the_seeds_payload_field_by_field(inspector: Inspector) -> None:
    """The example's item has every field and value of the seed, and adds only source and event id."""
    assert run("custom_event.py", THRIVESTACK_ENDPOINT=inspector.endpoint).stdout == "delivered\n"
    (item,), (seed,) = inspector.items(), json.loads(SEED)
    for field in ("event_name", "properties", "user_id", "timestamp"):
        assert item[field] == seed[field], field
    for key, value in seed["context"].items():
        assert item["context"][key] == value, key
    assert set(item) == set(seed)
    assert set(item["context"]) - set(seed["context"]) == {"source", "event_id"}


def test_quickstart_starts_an_inspector_and_shows_what_arrived() -> None:
    """Without an endpoint the example starts its own inspector; the failing and the unattributed call do not count."""
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


def test_quickstart_uses_the_endpoint_it_is_given(inspector: Inspector) -> None:
    """With an endpoint, the example starts no inspector."""
    done = run("quickstart.py", THRIVESTACK_ENDPOINT=inspector.endpoint)
    assert "delivered=16" in done.stdout
    assert len(inspector.items()) == 16
