"""Remarks on accepted items: missing recommended fields, wrong types, and names unknown to ThriveStack."""

from __future__ import annotations

import json
import re
from typing import Any

from ts_autotrack.inspector._contract import ENDPOINTS

_TEXTS = {
    "properties": frozenset(
        [
            "user_email",
            "action",
            "feature_name",
            "feature_type",
            "sub_feature_name",
            "interface",
            "subscription_type",
            "user_role",
            "user_name",
            "currency",
            "page_url",
            "page_path",
            "page_referrer",
            "page_title",
            "utm_source",
            "utm_medium",
            "utm_campaign",
            "utm_term",
            "step_name",
            "completion_status",
        ]
    ),
    "context": frozenset(
        [
            "group_id",
            "group_type",
            "device_type",
            "location",
            "referrer",
            "org_id",
            "tenant_id",
            "product_id",
            "environment_id",
            "device_id",
            "session_id",
            "source",
            "event_id",
        ]
    ),
    "traits": frozenset(
        [
            "user_email",
            "user_name",
            "first_name",
            "last_name",
            "phone",
            "account_name",
            "account_domain",
            "group_type",
            "plan_id",
            "plan_name",
        ]
    ),
}
"""Names with a text as value, by the object that holds them."""
_NUMBERS = frozenset(("revenue", "value"))
"""Properties with a number as value."""
_VALUES = {
    "feature_type": ("core", "sticky", "support", "secondary", "add-on"),
    "interface": ("api", "cli", "agent"),
}
"""Properties with few values."""
_RECOMMENDED = {
    "/track": (
        ("context", "group_id", "is missing; account-level reports need it"),
        ("context", "event_id", "is missing; a duplicate cannot be recognised without it"),
        ("context", "source", 'is missing; "product" is recommended for events of a back end'),
    ),
    "/identify": (("traits", "user_email", "is missing and may affect the report 'Virality'"),),
    "/group": (("traits", "account_name", "is missing; reports show the id of the account instead"),),
}
_FEATURE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")
_SEPARATORS = str.maketrans("", "", "_- .")
_SPELLINGS = {
    section: {name.translate(_SEPARATORS): name for name in (*names, *(_NUMBERS if section == "properties" else ()))}
    for section, names in _TEXTS.items()
}
"""Known names by their letters alone."""


def notes(path: str, item: dict[str, Any]) -> list[dict[str, str]]:
    """Return the remarks on an accepted item, as `{"field", "text"}`.

    Args:
        path: Endpoint: "/track", "/identify" or "/group".
        item: Item without a violation of the contract.
    """
    endpoint = ENDPOINTS[path]
    known = (*endpoint.texts, *endpoint.objects)
    found = [_note(name, _suggestion("", name) or "is unknown and is ignored") for name in item if name not in known]
    event = item.get("event_name")
    for section, name, text in _RECOMMENDED[path]:
        if not item.get(section, {}).get(name) and not (name == "group_id" and event == "signed_up"):
            found.append(_note(f"{section}.{name}", text))
    if event == "feature_used" and not item.get("properties", {}).get("feature_name"):
        found.append(_note("properties.feature_name", "is missing; the event belongs to no feature"))
    for section in endpoint.objects:
        for name, value in item.get(section, {}).items():
            if text := _remark(section, name, value):
                found.append(_note(f"{section}.{name}", text))
    return found


def notes_as_json(path: str, item: dict[str, Any]) -> str:
    """Return the remarks on an item as a JSON array."""
    found = notes(path, item)
    return json.dumps(found) if found else "[]"


def _remark(section: str, name: str, value: Any) -> str:
    if name in _TEXTS[section]:
        return _remark_on_text(name, value)
    if section == "properties" and name in _NUMBERS:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if number else "should be a number"
    return _suggestion(section, name)


def _remark_on_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        return "should be a text"
    if name in _VALUES and value not in _VALUES[name]:
        return f"should be one of {', '.join(_VALUES[name])}"
    if name == "feature_name" and not _FEATURE.fullmatch(value):
        return "should be a noun, or noun_verb, in snake_case"
    if name == "currency" and not (value.isascii() and value.isupper() and len(value) == len("USD")):
        return "should be a code of ISO 4217, such as USD"
    return ""


def _suggestion(section: str, name: str) -> str:
    """Return a remark if an unknown name is a known name of another object, or a known name in another spelling."""
    plain = name.lower().translate(_SEPARATORS)
    for other in ("traits",) if section == "traits" else dict.fromkeys((section or "properties", *_TEXTS)):
        if known := _SPELLINGS[other].get(plain):
            return f"is unknown here; ThriveStack knows {other}.{known}"
    return ""


def _note(field: str, text: str) -> dict[str, str]:
    return {"field": field, "text": text}
