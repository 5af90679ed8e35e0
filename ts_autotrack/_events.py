"""From a record to the bytes of one ThriveStack item. Runs on the worker."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from ts_autotrack._faults import fault, warn_once
from ts_autotrack._values import to_json

if TYPE_CHECKING:
    from ts_autotrack._buffer import Record, Site
    from ts_autotrack._scope import Scope
    from ts_autotrack._stats import Counts

# Endpoint, encoded item, number of its record in this process. A tuple: a named one takes 250 ns longer to make.
Item: TypeAlias = tuple[str, bytes, int]

MAX_BODY = 2_000_000
"""Bytes of a request's body at the most: the vendor's "2 MB"."""

SOURCE = "product"
"""What `context.source` says of in-app events, after the vendor's own back-end guide."""


class Encoder:
    """Builds and encodes items; gives each its id and its timestamp, once.

    Attributes:
        ids: The first half of every id that this encoder gives.

    What the events of one scope and site have in common is encoded once and kept on the scope: the whole of an item is
    then one formatted string. Measured against building and encoding each item's dict: 1.0 us an event to 3.7.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self.ids = os.urandom(8).hex().encode()
        self._clock = Clock()

    def items(self, records: list[Record], sequence: int) -> list[Item]:
        """Return the items for `records`; those that cannot become one are dropped, which is counted and explained.

        Args:
            records: In their order.
            sequence: How many this process had before; the ids go on from there.
        """
        items: list[Item] = []
        clock = self._clock
        for site, scope, moment, extras in records:
            sequence += 1
            try:
                known = scope.encoded
                if known is None or known.site is not site or known.encoder is not self:
                    known = scope.encoded = self._known(site, scope)
                if known.user is None:
                    self._drop("unattributed", site, _UNATTRIBUTED)
                    continue
                tail = known.tail if extras is None else known.tail_with(extras)
                if isinstance(moment, int):
                    fraction = clock.advance(known.user, moment)
                    # Formatting bytes takes 190 ns; an f-string and encoding it, 340.
                    body = b'%b%08x"},"timestamp":"%b%06dZ",%b' % (known.head, sequence, clock.text, fraction, tail)
                else:
                    body = b'%b%08x"},"timestamp":"%b",%b' % (known.head, sequence, moment.encode(), tail)
            except Exception as error:  # noqa: BLE001 - one event's fault is that event's loss
                fault(f"encoding an event of {site.where}", error)
                self._drop("fault", site, "could not be encoded; please report this")
                continue
            if len(body) > _MAX_ITEM:
                self._drop("too_large", site, f"has {len(body)} bytes, and a request may have {MAX_BODY}")
            else:
                items.append((site.path, body, sequence))
        return items

    def _known(self, site: Site, scope: Scope) -> Known:
        user_id = site.user_id or scope.user_id
        return Known(self, site, scope, user_id, self._clock.user(user_id) if user_id else None)

    def _drop(self, reason: str, site: Site, why: str) -> None:
        self._counts.drop(reason)
        warn_once((reason, site.where), f"dropped {_title(site)} ({site.where}): it {why}. Counted as '{reason}'.")


class Known:
    """What all events of one scope and one site have in common, encoded.

    Attributes:
        encoder: Whose ids `head` ends with; a forked child's encoder has others.
        site: The site.
        user: The acting user's last timestamp; None if nobody is known to act.
        head: The item up to and with the first half of its id.
        tail: The item's last field with what all events have in it, and the closing brace.
    """

    __slots__ = ("_base", "_last", "encoder", "head", "site", "tail", "user")

    def __init__(self, encoder: Encoder, site: Site, scope: Scope, user_id: str | None, user: User | None) -> None:
        self.encoder = encoder
        self.site = site
        self.user = user
        fields: dict[str, Any] = {"user_id": user_id}
        context = {"source": SOURCE, **scope.context}
        if group_id := site.group_id or scope.group_id:
            context["group_id"] = group_id
        context.pop("event_id", None)
        if site.user_id and site.group_id:
            context.pop("identity_source", None)  # neither came from baggage
        self._last, self._base = b"traits", site.properties
        if site.path == "/track":
            fields["event_name"] = site.event_name
            self._last, self._base = b"properties", {**scope.properties, **site.properties}
        elif site.path == "/group":
            fields["group_id"] = site.group_id
        self.head = b'%b,"context":%b,"event_id":"%b-' % (_dumps(fields)[:-1], _dumps(context)[:-1], encoder.ids)
        self.tail = self.tail_with({})

    def tail_with(self, extras: dict[str, Any] | tuple[Any, ...]) -> bytes:
        """Return the tail of an event that has properties or traits of its own."""
        return b'"%b":%b}' % (self._last, _dumps({**self._base, **self.site.named(extras)}))


def _dumps(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, _decimal)
    except TypeError:
        return orjson.dumps(to_json(value), _decimal)  # lone surrogates, which the caller's snapshot leaves


def _decimal(value: object) -> orjson.Fragment:
    """Write a Decimal, the only value of its kind that a snapshot leaves, as a number with its exact digits."""
    if type(value) is not getattr(sys.modules.get("decimal"), "Decimal", None):
        raise TypeError
    return orjson.Fragment(str(value))


_MAX_ITEM = MAX_BODY - 2  # the array's brackets
_UNATTRIBUTED = (
    "has no user. Wrap the work in `with user_context(user_id, group_id=...)` or call `bind_user(user_id)` where the "
    "user is known, or pass `user_id=` to the call"
)


def _title(site: Site) -> str:
    if not site.event_name:
        return site.path
    feature = site.properties.get("feature_name")
    return f"event {site.event_name!r}" + (f" of feature {feature!r}" if feature else "")


class User:
    """A user's clock.

    Attributes:
        last: The user's last timestamp, in microseconds since 1970.
    """

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0


class Clock:
    """Timestamps in the contract's form: UTC, microseconds, `Z`.

    The vendor asks for 1 ms between events of one handler, so that their order survives. So a user's next event is at
    least 1 ms after the last one, or 1 us once that has put the user's clock a second ahead of the real one.

    Attributes:
        text: The last timestamp up to its seconds, and the point.
    """

    _STEP, _SMALL_STEP, _LEAD = 1_000, 1, 1_000_000
    _USERS = 10_000

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._before: dict[str, User] = {}
        self._second = 0  # microseconds at the beginning of the second that `text` is of
        self.text = b"1970-01-01T00:00:00."

    def user(self, user_id: str) -> User:
        """Return the clock of a user; the last 10,000 users and more are remembered, in two generations."""
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = self._before.get(user_id) or User()
            if len(self._users) > self._USERS:
                self._before, self._users = self._users, {}
        return user

    def advance(self, user: User, nanoseconds: int) -> int:
        """Move a user's clock to `nanoseconds` since 1970, or just after its last time; return the microseconds.

        The seconds are in `text`.
        """
        now, last = nanoseconds // 1_000, user.last
        if now < last + self._STEP:
            now = max(now, last + (self._STEP if last - now < self._LEAD else self._SMALL_STEP))
        user.last = now
        fraction = now - self._second
        if not 0 <= fraction < 1_000_000:  # noqa: PLR2004 - microseconds
            second, fraction = divmod(now, 1_000_000)
            self._second = second * 1_000_000
            self.text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return fraction
