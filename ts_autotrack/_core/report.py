"""The report of a process: why events arrive or do not. The inspector and `ts-autotrack doctor` show it."""

from __future__ import annotations

import os
import sys
import time
from datetime import datetime, timezone
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from ts_autotrack._core import diagnostics
from ts_autotrack._core.capture import mechanisms
from ts_autotrack._core.config import SETTINGS
from ts_autotrack._core.process_id import started_at
from ts_autotrack._core.redaction import mask, mask_url, printable
from ts_autotrack._core.snapshot import to_json
from ts_autotrack._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ts_autotrack._core.config import Config
    from ts_autotrack.typing import Stats

MAX_BYTES = 60_000
"""Bytes of a report: the inspector takes 64,000."""
_LISTS = ("functions", "unattributed", "warnings")

_NAMES = {"directory": "outbox", "max_bytes": "outbox_bytes", "read": "baggage", "propagate": "propagate_baggage"}
"""Names of settings whose attributes in `Config` are called otherwise."""
_NAMES |= {"user_keys": "baggage_user_keys", "group_keys": "baggage_group_keys"}


def report(
    stats: Stats, config: Config, places: Mapping[tuple[str, str, str], int], *, ended: bool = False
) -> dict[str, Any]:
    """Return the report of this process, made of values that JSON knows.

    Args:
        stats: Account of the events.
        config: Settings in force.
        places: Numbers of unattributed events by place, event name and feature.
        ended: True if this is the last report of the process, or the last one before it goes on after `shutdown()`.
    """
    return {
        "version": __version__,
        "pid": os.getpid(),
        "program": program(),
        "started_at": _started_at(os.getpid()),
        "python": f"{sys.implementation.name} {sys.version.partition(' ')[0]}",
        "stats": stats._asdict(),
        "drops": stats.dropped,
        "off_reason": config.off_reason,
        "unattributed": [
            {"place": place, "event": event, "feature": feature, "count": count}
            for (place, event, feature), count in sorted(places.items(), key=lambda entry: -entry[1])
        ],
        "settings": settings_of(config),
        "functions": [list(function) for function in mechanisms.known()],
        "warnings": list(diagnostics.recent),
        "ended": ended,
    }


def encode(values: dict[str, Any]) -> bytes:
    """Return a report as JSON, with credentials masked, and its lists shortened to fit into `MAX_BYTES`."""
    body = _encode(values)
    while len(body) > MAX_BYTES and (longest := max(_LISTS, key=lambda name: len(values[name]))) and values[longest]:
        values = {**values, longest: values[longest][: len(values[longest]) // 2]}
        body = _encode(values)
    # Masking holds the interpreter, 0.1 s for 1 MB, so it comes last; it makes no text longer.
    return mask(body.decode()).encode()


def _encode(values: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(values, str)
    except TypeError:
        return orjson.dumps(to_json(values), str)  # a path of the file system may hold lone surrogates


def program() -> str:
    """Return the name of the program as it was started, without its arguments: these may hold credentials."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = getattr(spec, "name", None) or next(iter(getattr(sys, "argv", None) or ()), "")
    return printable(str(name).removesuffix(".__main__"))


def settings_of(config: Config) -> dict[str, Any]:
    """Return the settings in force by name; "***" stands for a credential."""
    groups = (config, config.server, config.outbox, config.baggage, config.defaults)
    found = {
        _NAMES.get(attribute, attribute): getattr(group, attribute)
        for group in groups
        for attribute in type(group).__slots__
    }
    values = {name: found[name] for name in SETTINGS if name in found}
    for name in ("api_key", "auth_token"):
        values[name] = "***" if values[name] else None
    values["endpoint"] = mask_url(values["endpoint"])
    return values


@lru_cache(1)
def _started_at(process: int) -> str | None:
    """Return the time of the start of a process in ISO 8601; None if the system does not tell."""
    nanoseconds = started_at(process)
    if nanoseconds > time.time_ns():
        return None
    return f"{datetime.fromtimestamp(nanoseconds / 1e9, timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
