"""Sends the custom event of ThriveStack's documentation with one call.

ts-autotrack inspect &
THRIVESTACK_ENDPOINT=http://127.0.0.1:8787/api python examples/custom_event.py
"""

from __future__ import annotations

import sys

import ts_autotrack

ts_autotrack.track(
    "[Your Custom Event]",
    {
        "user_email": "JaneDoe@example.com",
        "action": "clicked_button",
        "feature_name": "analytics_dashboard",
        "subscription_type": "premium",
    },
    user_id="user_123",
    group_id="account_456",
    timestamp="2024-10-20T15:51:36.514000Z",
    context={"device_type": "mobile", "location": "New York, USA", "referrer": "email_campaign"},
)

if __name__ == "__main__":
    ts_autotrack.flush(timeout=10)
    if ts_autotrack.stats().delivered != 1:
        sys.exit(f"not delivered: {ts_autotrack.stats()}")
    print("delivered")
