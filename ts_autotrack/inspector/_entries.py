"""Entries as the page and other programs read them: JSON made by SQLite, without a look into the items."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ts_autotrack.inspector._store import Store

FILTERS = ("kind", "request", "feature", "user", "account", "text")
"""Filters of GET /entries."""
MOST_BYTES = 2_000_000
"""Bytes of entries in one answer or message; a larger entry comes alone."""

_COLUMNS = (
    *("id", "received_at", "path", "request", "position", "batch_size", "item", "feature"),
    *("user_id", "group_id", "event_id", "event_name", "kind", "notes", "reason", "field", "duplicate_of"),
    "out_of_order",
)
_KINDS = {
    "events": {"kind": "'accepted'", "reason": "NULL", "field": "NULL"},
    "refused": {
        "kind": "'refused'",
        "event_name": "NULL",
        "notes": "NULL",
        "duplicate_of": "NULL",
        "out_of_order": "0",
    },
}
"""Values of the columns that only the other table has."""
_AS_JSON = {
    "item": "item",
    "notes": "coalesce(notes, '[]')",
    "out_of_order": "CASE WHEN out_of_order THEN 'true' ELSE 'false' END",
}
"""Columns that are JSON already."""
_JSON = " || ',' || ".join(
    f"'\"{name}\":' || {_AS_JSON.get(name, f'json_quote({name})')}" for name in _COLUMNS if name != "event_name"
)


def _table(name: str) -> str:
    columns = ", ".join(
        f"{_KINDS[name][column]} AS {column}" if column in _KINDS[name] else column for column in _COLUMNS
    )
    return f"SELECT {columns} FROM {name}"


_CONDITIONS = {
    "kind": "kind = :kind",
    "request": "request = :request",
    "feature": "instr(lower(coalesce(feature, '') || char(10) || coalesce(event_name, '')), :feature)",
    "user": "instr(lower(user_id), :user)",
    "account": "instr(lower(group_id), :account)",
    "text": "instr(lower(item || coalesce(reason, '')), :text)",
    "before": "id < :before",
    "after": "id > :after",
    "duplicate_of": "duplicate_of IS NOT NULL",
    "out_of_order": "out_of_order",
    "event_name is": "event_name = :event_name_is",
    "feature is": "feature = :feature_is",
    "user_id is": "user_id = :user_id_is",
    "group_id is": "group_id = :group_id_is",
}
"""Conditions by the name of their value."""


def after(store: Store, cursor: int, limit: int) -> list[tuple[int, str, str]]:
    """Return entries with a larger id than `cursor` as (id, kind, JSON), oldest first."""
    return _read(store, {"after": cursor}, "ASC", limit)


def newest(store: Store, values: Mapping[str, Any], limit: int) -> list[str]:
    """Return entries as JSON, newest first.

    Args:
        store: Store of the entries.
        values: Values of conditions, by their names in `_CONDITIONS`.
        limit: Maximum number of entries; fewer if they are large.
    """
    return [text for _, _, text in _read(store, values, "DESC", limit)]


def array(texts: Iterable[str]) -> str:
    """Return JSON texts as one JSON array."""
    return f"[{','.join(texts)}]"


def cells(store: Store, values: Mapping[str, Any]) -> list[tuple[str, str | None, int, int, str]]:
    """Return feature, account, minute, number of events and time of the last event, of accepted items of /track.

    The minute is that of the arrival, since 1970; 0 stands for all minutes more than half an hour ago.
    """
    conditions = _where({**values, "kind": "accepted"})
    minute = "CAST(strftime('%s', received_at) AS INTEGER) / 60"
    query = f"""
        SELECT feature, group_id, CASE WHEN received_at < :recent THEN 0 ELSE {minute} END, count(*), max(received_at)
        FROM ({_table("events")}) {conditions} AND path = '/track'
        GROUP BY 1, 2, 3 ORDER BY 3, 5
    """
    recent = datetime.now(timezone.utc) - timedelta(minutes=30)
    parameters = {**_values({**values, "kind": "accepted"}), "recent": f"{recent:%Y-%m-%dT%H:%M}"}
    return store.database.execute(query, parameters).fetchall()


def _read(store: Store, values: Mapping[str, Any], order: str, limit: int) -> list[tuple[int, str, str]]:
    tables = [f"SELECT * FROM ({_table(name)}) {_where(values)}" for name in ("events", "refused")]
    union = f"{' UNION ALL '.join(tables)} ORDER BY id {order} LIMIT :limit"
    rows = store.database.execute(
        f"SELECT id, kind, '{{' || {_JSON} || '}}' FROM ({union})", {**_values(values), "limit": limit}
    )
    found: list[tuple[int, str, str]] = []
    size = 0
    for row in rows:
        size += len(row[2])
        if found and size > MOST_BYTES:
            break
        found.append(row)
    return found
    rows.close()
    return found


def _where(values: Mapping[str, Any]) -> str:
    conditions = [_CONDITIONS[name] for name in values]
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of conditions; parts of texts in small letters, by which SQLite means ASCII's."""
    return {
        name.replace(" ", "_"): _lower(value) if "instr" in _CONDITIONS[name] else value
        for name, value in values.items()
    }


def _lower(text: str) -> str:
    return text.encode(errors="replace").lower().decode()
