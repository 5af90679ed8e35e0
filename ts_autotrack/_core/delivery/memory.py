"""The worker of exporter="memory": keeps the events of this process for tests, without a thread."""

from __future__ import annotations

from _thread import RLock
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

import orjson

from ts_autotrack._core import diagnostics
from ts_autotrack._core.delivery.drainer import Drainer
from ts_autotrack._core.delivery.encoder import EncodedScope, Encoder
from ts_autotrack._core.delivery.flush import FlushRequest
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.locks import HeldWithin, owns
from ts_autotrack._core.transports.jsonl import append_lines

if TYPE_CHECKING:
    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.capture.record import EventTemplate, Extras
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.queue import Item
    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import DropReason

MAX_UNATTRIBUTED = 1_000
"""Events without a user that are kept; all are counted."""
WRITE_TIMEOUT = 5.0
"""Seconds to wait for another thread that writes the file."""


class KeptEvent(NamedTuple):
    """An event as kept for a test.

    Attributes:
        path: Endpoint, such as "/track".
        body: The item, as JSON.
        place: Place in the application of an event without a user; empty for other events.
    """

    path: str
    body: bytes
    place: str = ""


class KeptItems(MemoryQueue):
    """Items kept until the process ends. They count as delivered."""

    def __init__(self, counters: Counters, config: Config) -> None:
        super().__init__()
        self._counters = counters
        self._delivered_before = counters.delivered
        self.config = config

    @property
    def capacity(self) -> int:
        """Items that `put` takes at the moment; 0 if they hold as many bytes as waiting events may."""
        config = self.config
        return max(0, config.max_queue - len(self._items)) if self._bytes < config.max_queue_bytes else 0

    def put(self, items: list[Item]) -> None:
        """Append items."""
        super().put(items)
        self._counters.delivered = self._delivered_before + len(self._items)

    def recover(self, after: int, through: int) -> bool:
        """See `EventQueue`."""
        self._counters.delivered = self._delivered_before + len(self._items)
        return super().recover(after, through)

    def since(self, position: int) -> list[Item]:
        """Return the items from a position on."""
        return list(islice(self._items, position, None))


class MemoryWorker:
    """Stands in for `Worker`: no thread, no transport. A read or a `flush` encodes the records on the caller's thread.

    Attributes:
        in_memory: True: this worker does not send.
        stopping, ended: False: events of a process that goes on after `shutdown` are kept, too.
        failing, answered: False: there are no requests.
        waiting_flushes: 0: a flush does its work at once.
        durable, in_flight: 0: no outbox, no requests.
    """

    in_memory: Literal[True] = True
    waiting_flushes = 0
    stopping = ended = failing = answered = False
    durable = in_flight = 0

    def __init__(self, config: Config, buffer: Buffer, counters: Counters, lock: RLock) -> None:
        self._counters = counters
        self._kept = KeptItems(counters, config)
        self._encoder = Encoder(counters, self._keep_unattributed)
        self._drainer = Drainer(buffer, self._encoder, self._kept, counters, lock)
        self._unattributed: list[KeptEvent] = []
        self._written = [0, 0]  # items and unattributed events in the file
        self._writing = RLock()  # a signal handler writes while threads of a server track their last events

    def read(self, events: int, unattributed: int) -> tuple[list[KeptEvent], list[KeptEvent]]:
        """Return the events and the events without a user, from these positions on."""
        self._drain()
        return [KeptEvent(path, body) for path, body, _ in self._kept.since(events)], self._unattributed[unattributed:]

    def dropped(self) -> dict[DropReason, int]:
        """Return the numbers of events dropped so far, by reason."""
        counts = self._drainer.buffer.dropped()
        for reason, count in self._counters.dropped.items():
            counts[reason] = counts.get(reason, 0) + count
        return {reason: count for reason, count in counts.items() if count}

    def on_record(self) -> None:
        """Let captures append directly, as far as the limit allows."""
        self._drainer.allow_appends()

    def move_to(self, buffer: Buffer) -> None:
        """Go on with the records of another buffer. The caller holds the drain lock."""
        self._drainer.buffer = buffer

    def reconfigure(self, config: Config) -> None:
        """Use other settings from now on."""
        self._kept.config = config

    def wake(self) -> bool:
        """Return True: nothing has to be woken."""
        return True

    def as_predecessor(self) -> None:
        """Return None: the kept items are settled."""

    def cancel_request(self) -> None:
        """Do nothing: there are no requests."""

    def request_flush(self) -> FlushRequest:
        """Return a request for `wait_for`."""
        return FlushRequest()

    def cancel(self, request: FlushRequest) -> None:
        """Give up a request."""

    def wait_for(self, request: FlushRequest, timeout: float) -> bool:
        """Encode the records so far; return False if some are left: the memory is full, or encoding is in progress."""
        del request
        return self.flush(timeout)

    def flush(self, timeout: float) -> bool:
        """Encode the records so far; return True if all are kept or dropped."""
        del timeout
        self._drain()
        return not self.pending and not owns(self._writing)

    def commit(self, timeout: float) -> None:
        """At an end of the process: write new events to the file that the setting JSONL_PATH names."""
        del timeout
        self._drain()
        path = self._kept.config.jsonl_path
        if path == "-" or owns(self._writing):  # a signal handler inside: the interrupted call goes on
            return
        with HeldWithin(self._writing, WRITE_TIMEOUT) as free:
            if free:
                self._write(path)

    def _write(self, path: str) -> None:
        """Append new events to the file. The caller holds the lock."""
        events = [KeptEvent(path, body) for path, body, _ in self._kept.since(self._written[0])]
        unattributed = self._unattributed[self._written[1] :]
        try:
            append_lines(path, [_line(event) for event in (*events, *unattributed)])
        except OSError as error:
            message = "%d events of exporter=memory cannot be written to TS_AUTOTRACK_JSONL_PATH=%s: %s"
            diagnostics.log("warning", message, len(events), path, error)
            return
        self._written[0] += len(events)
        self._written[1] += len(unattributed)

    def stop(self, timeout: float, grace: float | None = None) -> bool:
        """Encode the records so far; return True if all are kept or dropped."""
        del grace
        return self.flush(timeout)

    @property
    def may_be_stuck(self) -> bool:
        """True if the calling thread is encoding or writing: a signal handler interrupted the work."""
        return self._drainer.holds_lock or owns(self._writing)

    @property
    def pending(self) -> int:
        """Records that are not encoded yet."""
        return len(self._drainer.buffer.records)

    def _drain(self) -> None:
        if self._drainer.drain():
            self._drainer.allow_appends()  # as far as the limit allows beside the kept items
        diagnostics.report()

    def _keep_unattributed(self, template: EventTemplate, scope: Scope, moment: int | str, extras: Extras) -> None:
        if len(self._unattributed) >= MAX_UNATTRIBUTED:
            return
        group_id = scope.group_id if template.group_id is None else template.group_id
        encoded = EncodedScope(self._encoder.common, scope, None, group_id, None)
        encoded.select_template(template)
        tail = encoded.tail if extras is None else encoded.tail_with(template, extras)
        if isinstance(moment, int):
            moment = f"{datetime.fromtimestamp(moment / 1e9, timezone.utc):%Y-%m-%dT%H:%M:%S.%f}Z"
        body = b'%b%08x"},"timestamp":"%b",%b' % (encoded.head, 0, moment.encode(), tail)
        self._unattributed.append(KeptEvent(template.path, body, template.where))


def _line(event: KeptEvent) -> bytes:
    place = b',"place":%b' % orjson.dumps(event.place) if event.place else b""
    return b'{"path":"%b","item":%b%b}\n' % (event.path.encode(), event.body, place)
