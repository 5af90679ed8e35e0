"""From a record to the bytes of one ThriveStack item. Runs on the worker."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from ts_autotrack._core.diagnostics import fault, warn_once
from ts_autotrack._core.snapshot import to_json

if TYPE_CHECKING:
    from ts_autotrack._core.capture.record import EventTemplate, Record
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import DropReason

# Endpoint, encoded item, number of its record in this process. A tuple: a named one takes 250 ns longer to make.
Item: TypeAlias = tuple[str, bytes, int]

MAX_BODY = 2_000_000
"""Bytes of a request's body at the most: the vendor's "2 MB"."""
MAX_QUEUED_BYTES = 2 * MAX_BODY
"""Bytes that are encoded at once."""

STRETCH, GIVE_WAY = 200, 0.000_001
"""Records that are encoded in one go, and the seconds of rest after them, in which the application's threads get the
GIL. One that comes back from waiting for I/O while a backlog is delivered has to wait for 0.15 ms (median) instead of
0.4, and for 0.6 (one in ten) instead of 2.8. No rest at all would end before the other thread has woken up."""

LONG_REST, NO_REST = 0.002, 0.02
"""After a rest of so many seconds some thread is computing, which gets 5 ms of the GIL each time. Where much waits,
there is then no other rest for so many seconds: beside such a thread 80,000 events a second are taken out, where it
would be 32,000 with all rests, and 95,000 without any; but then threads that come back from I/O would wait for 2.1 ms
(one in ten)."""

PATHS = ("/track", "/identify", "/group")
"""The endpoints."""

SOURCE = "product"
"""What `context.source` says of in-app events, after the vendor's own back-end guide."""


class Encoder:
    """Builds and encodes items; gives each its id and its timestamp, once.

    Attributes:
        ids: The first half of every id that this encoder gives.

    What the events of one scope have in common, and those of one site, is encoded once: an item is then one formatted
    string. Measured against building and encoding each item's dict: 1.0 us an event to 3.7; and with a scope of its own
    for each event, as in a server whose requests make one each, 2.3 us to 4.9.
    """

    def __init__(self, counts: Counters) -> None:
        self._counts = counts
        self.ids = os.urandom(8).hex().encode()
        self._clock = Clock()
        self._no_rest_until = 0.0

    def items(self, records: list[Record], sequence: int, *, pressed: bool = False) -> tuple[list[Item], int]:
        """Return the items for `records`, and how many records these were: fewer than all once there are bytes enough.

        Those that cannot become an item are dropped, which is counted and explained.

        Args:
            records: In their order.
            sequence: How many this process had before; the ids go on from there.
            pressed: Whether so many wait that these matter more than giving way to threads that compute.
        """
        items: list[Item] = []
        rests = not pressed or time.monotonic() >= self._no_rest_until
        done, room = self._encode(records[:STRETCH] if rests else records, sequence, items, MAX_QUEUED_BYTES)
        while room > 0 and done < len(records):
            began = time.monotonic()
            time.sleep(GIVE_WAY)
            now = time.monotonic()
            if pressed and now - began > LONG_REST:
                self._no_rest_until, rests = now + NO_REST, False
            stretch = records[done : done + STRETCH] if rests else records[done:]
            more, room = self._encode(stretch, sequence + done, items, room)
            done += more
        return items, done

    def _encode(self, records: list[Record], sequence: int, items: list[Item], room: int) -> tuple[int, int]:
        """Add the items for `records` up to so many bytes; return how many records these were, and the bytes left."""
        clock, before = self._clock, sequence
        for site, scope, moment, extras in records:
            sequence += 1
            try:
                actor = scope.encoded
                if actor is None or actor.site is not site or actor.encoder is not self:
                    actor = self._actor(scope, site)
                if actor.user is None:
                    self._drop("unattributed", site, _UNATTRIBUTED)
                    continue
                tail = actor.tail if extras is None else actor.tail_with(site, extras)
                if isinstance(moment, int):
                    fraction = clock.advance(actor.user, moment)
                    # Formatting bytes takes 190 ns; an f-string and encoding it, 340.
                    body = b'%b%08x"},"timestamp":"%b%06dZ",%b' % (actor.head, sequence, clock.text, fraction, tail)
                else:
                    body = b'%b%08x"},"timestamp":"%b",%b' % (actor.head, sequence, moment.encode(), tail)
            except Exception as error:
                fault(f"encoding an event of {site.where}", error)
                self._drop("fault", site, "could not be encoded; please report this")
                continue
            if len(body) > _MAX_ITEM:
                self._drop("too_large", site, f"has {len(body)} bytes, and a request may have {MAX_BODY}")
                continue
            items.append((site.path, body, sequence))
            room -= len(body)
            if room <= 0:
                break
        return sequence - before, room

    def _actor(self, scope: Scope, site: EventTemplate) -> Actor:
        """Return what is encoded of a scope, made ready for a site."""
        actor = scope.encoded
        user_id, group_id = site.user_id or scope.user_id, site.group_id or scope.group_id
        if actor is None or actor.encoder is not self or (actor.user_id, actor.group_id) != (user_id, group_id):
            user = self._clock.user(user_id) if user_id else None
            actor = scope.encoded = Actor(self, scope, user_id, group_id, user)
        actor.turn_to(site)
        return actor

    def _drop(self, reason: DropReason, site: EventTemplate, why: str) -> None:
        self._counts.drop(reason)
        warn_once((reason, site.where), f"dropped {_title(site)} ({site.where}): it {why}. Counted as '{reason}'.")


class Actor:
    """What all events of one scope have in common, encoded: who acts, and in what context.

    Attributes:
        encoder: Whose ids `head` ends with; a forked child's encoder has others.
        user_id: Who acts: the scope's user, or the one that the site names.
        group_id: For whom: likewise.
        user: The user's last timestamp; None if nobody is known to act.
        head: The item up to and with the first half of its id.
        site: The site that `tail` is of.
        tail: The rest of the item after its timestamp, for an event that has no properties or traits of its own.
    """

    __slots__ = ("_encoded", "_properties", "encoder", "group_id", "head", "site", "tail", "user", "user_id")

    def __init__(
        self, encoder: Encoder, scope: Scope, user_id: str | None, group_id: str | None, user: User | None
    ) -> None:
        self.encoder = encoder
        self.user_id = user_id
        self.group_id = group_id
        self.user = user
        context = {"source": SOURCE, **scope.context}
        if group_id:
            context["group_id"] = group_id
        context.pop("event_id", None)
        if user_id is not scope.user_id and group_id is not scope.group_id:
            context.pop("identity_source", None)  # neither came from baggage
        self.head = b'%b,"event_id":"%b-' % (_dumps({"user_id": user_id, "context": context})[:-2], encoder.ids)
        self._properties = scope.properties
        self._encoded = b""
        self.site: EventTemplate | None = None
        self.tail = b""

    def turn_to(self, site: EventTemplate) -> None:
        """Make `tail` that of a site's events."""
        self.site = site
        opening, own = site.encoded or _encode(site)
        if site.path != "/track" or not self._properties:
            self.tail = b"%b%b}" % (opening, own)
        elif site.properties and self._properties.keys().isdisjoint(site.properties):
            self._encoded = self._encoded or _dumps(self._properties)[:-1]
            self.tail = b"%b%b,%b}" % (opening, self._encoded, own[1:])
        else:
            self.tail = b"%b%b}" % (opening, _dumps({**self._properties, **site.properties}))

    def tail_with(self, site: EventTemplate, extras: dict[str, Any] | tuple[Any, ...]) -> bytes:
        """Return the tail of an event of a site that has properties or traits of its own."""
        opening, _ = site.encoded or _encode(site)
        base = {**self._properties, **site.properties} if site.path == "/track" else site.properties
        return b"%b%b}" % (opening, _dumps({**base, **site.by_name(extras)}))


def _encode(site: EventTemplate) -> tuple[bytes, bytes]:
    """Encode what all events of a site have in common: the fields that come after the timestamp, but for the last one's
    value; and that value, without what a scope adds.
    """
    fields: dict[str, Any] = {}
    if site.path == "/track":
        fields["event_name"] = site.event_name
    elif site.path == "/group":
        fields["group_id"] = site.group_id
    fields["properties" if site.path == "/track" else "traits"] = {}
    site.encoded = _dumps(fields)[1:-3], _dumps(site.properties)
    return site.encoded


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


def _title(site: EventTemplate) -> str:
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
        if not 0 <= fraction < 1_000_000:
            second, fraction = divmod(now, 1_000_000)
            self._second = second * 1_000_000
            self.text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return fraction
