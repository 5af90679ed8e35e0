"""From records to the bytes of ThriveStack items."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import orjson

from ts_autotrack._core.capture.monitor import monitor
from ts_autotrack._core.capture.record import template_of, time_of
from ts_autotrack._core.contract import GROUP, MAX_BODY, SOURCE, TRACK
from ts_autotrack._core.delivery.clock import Clock
from ts_autotrack._core.delivery.queue import MAX_QUEUED_BYTES
from ts_autotrack._core.diagnostics import fault, warn_once
from ts_autotrack._core.identity import defaults
from ts_autotrack._core.snapshot import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.capture.record import EventTemplate, Extras, Moment, Record
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.clock import UserClock
    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack._core.identity.defaults import Defaults
    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import DropReason

MAX_ITEM = MAX_BODY - len("[]")
"""Bytes of one item: a request's body is an array of items."""

REST_EVERY = 200
"""Records between two rests."""
REST = 0.000_001
"""Seconds of a rest, in which the application's threads get the GIL.

During a backlog's delivery, a thread back from I/O then waits for 0.15 ms (median) instead of 0.4 ms, and for 0.6 ms
(90th percentile) instead of 2.8 ms. A rest of zero seconds would end before the other thread has woken up.
"""

_SPAN_FIELDS = {"trace_id", "span_id"}

LONG_REST, NO_REST = 0.002, 0.02
"""Seconds of a rest that proves the presence of a computing thread, and seconds without rests after such a rest.

A computing thread keeps the GIL for 5 ms at each rest. While the buffer is backed up, the encoder therefore stops
resting for a moment. Beside a computing thread the encoder then manages 80,000 events a second: 32,000 with all rests,
95,000 without rests. Without rests, threads back from I/O would wait for 2.1 ms (90th percentile).
"""


def _ignore(template: EventTemplate, scope: Scope, moment: int | str, extras: Extras) -> None:
    """Do nothing about a record without a user."""


class Encoder:
    """Builds and encodes items; gives each item its id and its timestamp once.

    The encoder caches the common part of all events of a scope, and of a template, so that an item is one formatted
    string. An event takes 1.0 us; building and encoding a dict for each item would take 3.7 us. With a scope for each
    event, as in a server whose requests have one event each, an event takes 2.3 us against 4.9 us.

    Attributes:
        common: Common part of all events of this encoder.
        on_unattributed: Called with the parts of each record without a user.
    """

    def __init__(
        self, counters: Counters, on_unattributed: Callable[[EventTemplate, Scope, int | str, Extras], None] = _ignore
    ) -> None:
        self.on_unattributed = on_unattributed
        self._counters = counters
        self.common = Common(os.urandom(8).hex().encode(), defaults.in_force)
        self._clock = Clock()
        self._no_rest_until = 0.0

    def encode(self, records: list[Record], sequence: int, *, backed_up: bool = False) -> tuple[list[Item], int]:
        """Return the items for the first records, and the number of these records.

        Encoding stops before the end of `records` once the items reach `MAX_QUEUED_BYTES`. Records without an
        item are counted as dropped, with a warning.

        Args:
            records: Records in their order.
            sequence: Records of this process before these; the ids continue from this number.
            backed_up: True if encoding matters more than the rests for computing threads.
        """
        items: list[Item] = []
        rests = not backed_up or time.monotonic() >= self._no_rest_until
        done, bytes_left = self._encode(records[:REST_EVERY] if rests else records, sequence, items, MAX_QUEUED_BYTES)
        while bytes_left > 0 and done < len(records):
            began = time.monotonic()
            time.sleep(REST)
            now = time.monotonic()
            if backed_up and now - began > LONG_REST:
                self._no_rest_until, rests = now + NO_REST, False
            part = records[done : done + REST_EVERY] if rests else records[done:]
            more, bytes_left = self._encode(part, sequence + done, items, bytes_left)
            done += more
        return items, done

    def _encode(self, records: list[Record], sequence: int, items: list[Item], bytes_left: int) -> tuple[int, int]:
        """Add the items of `records` until `bytes_left` is used; return the number of records and the bytes left."""
        clock, before = self._clock, sequence
        if self.common.defaults is not defaults.in_force:
            self.common = Common(self.common.ids, defaults.in_force)
        common = self.common
        for subject, scope, moment, extras in records:
            template = template_of(subject)
            sequence += 1
            if template is None:
                self._drop_foreign(subject)
                continue
            try:
                encoded: EncodedScope | None = scope._encoded  # noqa: SLF001 - the slot is the encoder's
                if encoded is None or encoded.template is not template or encoded.common is not common:
                    encoded = self._encoded_scope(scope, template)
                if encoded.user is None:
                    self.on_unattributed(template, scope, time_of(moment), extras)
                    self._drop("unattributed", template, _UNATTRIBUTED)
                    feature = template.properties.get("feature_name", "")
                    self._counters.count_place(template.where, template.event_name or template.path, str(feature))
                    continue
                tail = encoded.tail if extras is None else encoded.tail_with(template, extras)
                if isinstance(moment, int):
                    fraction = clock.advance(encoded.user, moment)
                    # Formatting bytes takes 190 ns; an f-string and its encoding take 340 ns.
                    body = b'%b%08x"},"timestamp":"%b%06dZ",%b' % (encoded.head, sequence, clock.text, fraction, tail)
                else:
                    body = self._placed(encoded, encoded.user, sequence, moment, tail)
            except Exception as error:  # noqa: BLE001 - a fault costs a single event
                fault(f"encoding an event of {template.where}", error)
                self._drop("fault", template, "could not be encoded; please report this")
                continue
            if len(body) > MAX_ITEM:
                self._drop("too_large", template, f"has {len(body)} bytes, and a request may have {MAX_BODY}")
                continue
            items.append((template.path, body, sequence))
            bytes_left -= len(body)
            if bytes_left <= 0:
                break
        return sequence - before, bytes_left

    def _placed(self, encoded: EncodedScope, user: UserClock, sequence: int, moment: Moment, tail: bytes) -> bytes:
        """Return the item of an event with a timestamp of the application's, or with a span."""
        ids = b""
        if isinstance(moment, tuple):
            moment, span = moment
            if not encoded.names_span:
                ids = b'","trace_id":"%032x","span_id":"%016x' % span
        if isinstance(moment, int):
            fraction = self._clock.advance(user, moment)
            time = b"%b%06dZ" % (self._clock.text, fraction)
        else:
            time = moment.encode()
        return b'%b%08x%b"},"timestamp":"%b",%b' % (encoded.head, sequence, ids, time, tail)

    def _encoded_scope(self, scope: Scope, template: EventTemplate) -> EncodedScope:
        """Return the encoded scope for an event of `template`."""
        encoded: EncodedScope | None = scope._encoded  # noqa: SLF001 - the slot is the encoder's
        user_id = scope.user_id if template.user_id is None else template.user_id
        group_id = scope.group_id if template.group_id is None else template.group_id
        if template.user_id and scope.user_id not in (None, template.user_id):
            group_id = template.group_id  # another user starts anew
        common, ids = self.common, (user_id, group_id)
        if encoded is None or encoded.common is not common or (encoded.user_id, encoded.group_id) != ids:
            user = self._clock.user(user_id) if user_id else None
            own = scope if user_id == scope.user_id else scope.derive(user_id, group_id)
            encoded = scope._encoded = EncodedScope(common, own, user_id, group_id, user)  # noqa: SLF001 - likewise
        encoded.select_template(template)
        return encoded

    def _drop_foreign(self, code: Any) -> None:
        """Drop the record of code that another tool had watched: Python keeps the events of an id that a tool frees."""
        monitor.silence(code)
        self._counters.drop("invalid")
        warn_once(
            ("foreign", code.co_qualname),
            f"another tool of sys.monitoring freed the id that this library now has, and left its events on "
            f"{code.co_qualname} ({code.co_filename}). They are turned off; calls until then are counted as 'invalid'.",
        )

    def _drop(self, reason: DropReason, template: EventTemplate, why: str) -> None:
        self._counters.drop(reason)
        message = f"dropped {_title(template)} ({template.where}): it {why}. Counted as '{reason}'."
        warn_once((reason, template.where), message)


class Common:
    """Common part of all events of one encoder, under one set of settings.

    Attributes:
        ids: First half of every id; a forked child's encoder has others.
        defaults: Values of the process.
    """

    __slots__ = ("defaults", "ids")

    def __init__(self, ids: bytes, values: Defaults) -> None:
        self.ids = ids
        self.defaults = values


class EncodedScope:
    """Encoded common part of all events of one scope.

    Attributes:
        common: Common part of all events of the encoder that made this.
        user_id: The scope's user, or the template's.
        group_id: The scope's group, or the template's.
        user: The user's clock; None if the user is unknown.
        names_span: True if the context has ids of a trace or span, which win over those of the current span.
        head: JSON of an item from its start to the first half of its id.
        template: The selected template.
        tail: JSON after the timestamp of an event of the selected template, without properties or traits of its own.
    """

    __slots__ = (
        "_properties",
        "_properties_json",
        "common",
        "group_id",
        "head",
        "names_span",
        "tail",
        "template",
        "user",
        "user_id",
    )

    def __init__(
        self, common: Common, scope: Scope, user_id: str | None, group_id: str | None, user: UserClock | None
    ) -> None:
        self.common = common
        self.user_id = user_id
        self.group_id = group_id
        self.user = user
        context = {"source": SOURCE, **common.defaults.context, **scope.context}
        if group_id:
            context["group_id"] = group_id
        context.pop("event_id", None)
        if user_id is not scope.user_id and group_id is not scope.group_id:
            context.pop("identity_source", None)  # neither id came from baggage
        self.names_span = not _SPAN_FIELDS.isdisjoint(context)
        self.head = b'%b,"event_id":"%b-' % (_dumps({"user_id": user_id, "context": context})[:-2], common.ids)
        own = common.defaults.properties
        self._properties = {**own, **scope.properties} if own else scope.properties
        self._properties_json = b""
        self.template: EventTemplate | None = None
        self.tail = b""

    def select_template(self, template: EventTemplate) -> None:
        """Set `tail` for the events of `template`."""
        self.template = None  # until `tail` is right: a signal handler may raise in between
        fields, own = template.encoded or _encode_template(template)
        if template.path != TRACK or not self._properties:
            self.tail = b"%b%b}" % (fields, own)
        elif template.properties and self._properties.keys().isdisjoint(template.properties):
            self._properties_json = self._properties_json or _dumps(self._properties)[1:-1]
            self.tail = b"%b%b,%b}" % (fields, self._properties_json, own)
        else:
            self.tail = b"%b%b}" % (fields, _dumps({**self._properties, **template.properties})[1:])
        self.template = template

    def tail_with(self, template: EventTemplate, extras: Extras) -> bytes:
        """Return the tail of an event of `template` with properties or traits of its own."""
        fields, _ = template.encoded or _encode_template(template)
        base = {**self._properties, **template.properties} if template.path == TRACK else template.properties
        return b"%b%b}" % (fields, _dumps({**base, **template.by_name(extras)})[1:])


def _encode_template(template: EventTemplate) -> tuple[bytes, bytes]:
    """Encode the common part of all events of a template.

    Returns:
        JSON of the fields after the timestamp, up to the opening brace of "properties" or "traits"; JSON of these,
        from after their opening brace, without the scope's properties. Both are slices: bytes as orjson (3.13) returns
        them hold up to ten times their length.
    """
    fields: dict[str, Any] = {}
    if template.path == TRACK:
        fields["event_name"] = template.event_name
    elif template.path == GROUP:
        fields["group_id"] = template.group_id
    fields["properties" if template.path == TRACK else "traits"] = {}
    template.encoded = _dumps(fields)[1:-2], _dumps(template.properties)[1:]
    return template.encoded


def _dumps(value: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(value, _decimal)
    except TypeError:
        return orjson.dumps(to_json(value), _decimal)  # lone surrogates: the caller's snapshot does not search for them


def _decimal(value: object) -> orjson.Fragment:
    """Write a Decimal as a number with its exact digits; snapshots contain no other value unknown to orjson."""
    if type(value) is not getattr(sys.modules.get("decimal"), "Decimal", None):
        raise TypeError
    return orjson.Fragment(str(value))


_UNATTRIBUTED = (
    "has no user. Wrap the work in `with user_context(user_id, group_id=...)`, or call `bind_user(user_id)` where the "
    "user is known, or name the user by `user=` of the integration or TS_AUTOTRACK_USER, or pass `user_id=` to the call"
)


def _title(template: EventTemplate) -> str:
    if not template.event_name:
        return template.path
    feature = template.properties.get("feature_name")
    return f"event {template.event_name!r}" + (f" of feature {feature!r}" if feature else "")
