"""ThriveStack's ingestion contract, as a sender needs it: limits, paths, field names, kinds.

The facts come from the vendor's reference and from the document that the project was created from. The inspector has a
description of its own, so that a mistake here does not hide itself.
"""

from __future__ import annotations

DEFAULT_ENDPOINT = "https://api.app.thrivestack.ai/api"

TRACK, IDENTIFY, GROUP = "/track", "/identify", "/group"
PATHS = (TRACK, IDENTIFY, GROUP)

REPORTS, INSPECTOR = "/reports", "x-ts-autotrack-inspector"
"""Path of the inspector's process reports, and the header of all its answers. ThriveStack knows neither."""

MAX_ITEMS = 1_000
"""Items per request."""
MAX_BODY = 2_000_000
"""Bytes per request body: the vendor's "2 MB"."""

FEATURE_USED = "feature_used"
"""The event name that the vendor's feature reports read."""
SOURCE = "product"
"""`context.source` of in-app events, after the vendor's back-end guide."""

FEATURE_TYPES = ("core", "sticky", "support", "secondary", "add-on")
INTERFACES = ("api", "cli", "agent")
CONTEXT_FIELDS = ("device_type", "location", "referrer", "session_id", "device_id")
"""Context fields, besides `group_id`, that `user_context` takes as arguments."""
