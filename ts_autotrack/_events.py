"""From a record to the bytes of one ThriveStack item. Runs on the worker."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ts_autotrack._faults import fault, warn_once
from ts_autotrack._values import to_json

if TYPE_CHECKING:
    from ts_autotrack._buffer import Record, Site
    from ts_autotrack._scope import Scope
    from ts_autotrack._stats import Counts

MAX_BODY = 2_000_000
"""Bytes of a request's body at the most: the vendor's "2 MB"."""

SOURCE = "product"
"""What `context.source` says of in-app events, after the vendor's own back-end guide."""


class Item(NamedTuple):
    """One event, encoded: what a request's array is made of."""

    path: str
    body: bytes
    sequence: int


class Encoder:
    """Builds and encodes items; gives each its id and its timestamp, once."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._ids = f"{os.urandom(8).hex()}-"
        self._clock = Timestamps()

    def item(self, record: Record, sequence: int) -> Item | None:
        """Return the item for `record`, or None if it was dropped, which is counted and explained.

        Args:
            record: What a capture left.
            sequence: The record's number in this process; also the second half of its id.
        """
        site = record[0]
        try:
            user_id = site.user_id or record[1].user_id
            if user_id is None:
                self._drop("unattributed", site, _UNATTRIBUTED)
                return None
            body = self._body(record, user_id, sequence)
        except Exception as error:  # noqa: BLE001 - one event's fault is that event's loss
            fault(f"encoding an event of {site.where}", error)
            self._drop("fault", site, "could not be encoded; please report this")
            return None
        if len(body) > MAX_BODY - 2:  # the array's brackets
            self._drop("too_large", site, f"has {len(body)} bytes, and a request may have {MAX_BODY}")
            return None
        return Item(site.path, body, sequence)

    def _body(self, record: Record, user_id: str, sequence: int) -> bytes:
        site, scope, moment, extras = record
        timestamp = self._clock.stamp(user_id, moment) if type(moment) is int else moment
        context = {"source": SOURCE, **scope.context, "event_id": f"{self._ids}{sequence:08x}"}
        if group_id := site.group_id or scope.group_id:
            context["group_id"] = group_id
        item = _SHAPES[site.path](site, scope, extras or _NOTHING)
        item["user_id"] = user_id
        item["timestamp"] = timestamp
        item["context"] = context
        try:
            return orjson.dumps(item, _decimal)
        except TypeError:
            return orjson.dumps(to_json(item), _decimal)  # lone surrogates, which the caller's snapshot leaves

    def _drop(self, reason: str, site: Site, why: str) -> None:
        self._counts.drop(reason)
        warn_once((reason, site.where), f"dropped {_title(site)} ({site.where}): it {why}. Counted as '{reason}'.")


def _decimal(value: object) -> orjson.Fragment:
    """Write a Decimal, the only value of its kind that a snapshot leaves, as a number with its exact digits."""
    return orjson.Fragment(str(value))


_UNATTRIBUTED = (
    "has no user. Wrap the work in `with user_context(user_id, group_id=...)` or call `bind_user(user_id)` where the "
    "user is known, or pass `user_id=` to the call"
)
_NOTHING: dict[str, Any] = {}


def _title(site: Site) -> str:
    name = site.properties.get("feature_name")
    return f"event {site.event_name!r}" + (f" of feature {name!r}" if name else "") if site.event_name else site.path


def _track(site: Site, scope: Scope, extras: dict[str, Any]) -> dict[str, Any]:
    return {"event_name": site.event_name, "properties": {**scope.properties, **site.properties, **extras}}


def _identify(_: Site, __: Scope, traits: dict[str, Any]) -> dict[str, Any]:
    return {"traits": traits}


def _group(site: Site, _: Scope, traits: dict[str, Any]) -> dict[str, Any]:
    return {"group_id": site.group_id, "traits": traits}


_SHAPES = {"/track": _track, "/identify": _identify, "/group": _group}


class Timestamps:
    """Timestamps in the contract's form: UTC, microseconds, `Z`.

    The vendor asks for 1 ms between events of one handler, so that their order survives. So a user's next event is at
    least 1 ms after the last one, or 1 us once that has put the user's clock a second ahead of the real one.
    """

    _STEP, _SMALL_STEP, _LEAD = 1_000, 1, 1_000_000
    _USERS = 10_000

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._second = -1
        self._text = ""

    def stamp(self, user_id: str, nanoseconds: int) -> str:
        """Return the text for an event of `user_id` at `nanoseconds` since 1970, later than the user's last one."""
        now = nanoseconds // 1_000
        last = self._last.get(user_id) or self._before.get(user_id, 0)
        if now < last + self._STEP:
            now = max(now, last + (self._STEP if last - now < self._LEAD else self._SMALL_STEP))
        self._last[user_id] = now
        if len(self._last) > self._USERS:  # two generations bound the memory without forgetting the recent ones
            self._before, self._last = self._last, {}
        return self._format(now)

    def _format(self, microseconds: int) -> str:
        second, fraction = divmod(microseconds, 1_000_000)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{fraction:06d}Z"
