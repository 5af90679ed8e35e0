"""For tests of applications: the events that the code under test tracks, checked in process, and sent nowhere.

`capture_events` is a block and a decorator, `captured_events` is its fixture for pytest. `read` reads the events of a
test server that runs with `TS_AUTOTRACK_EXPORTER=memory`.

Example:
    >>> from ts_autotrack import track_feature, user_context
    >>> from ts_autotrack.testing import capture_events
    >>> @track_feature("report_export")
    ... def export_report(): ...
    >>> with capture_events() as events, user_context("user_123", group_id="account_456"):
    ...     export_report()
    >>> events.one("report_export").group_id
    'account_456'
"""

from __future__ import annotations

import functools
import inspect
import json
import pathlib
import threading
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ts_autotrack._core.client import client
from ts_autotrack._core.delivery.memory import KeptEvent
from ts_autotrack._core.identity.scope import current, restore, set_current

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from contextvars import Token
    from types import TracebackType

    from ts_autotrack._core.account import Account
    from ts_autotrack._core.identity.scope import Scope
    from ts_autotrack.typing import DropReason

    class Source(Protocol):
        """The worker that keeps the events in memory, or a file."""

        def read(self, events: int, unattributed: int) -> tuple[list[KeptEvent], list[KeptEvent]]:
            """Return the events and the events without a user, from these positions on."""
            ...

        def dropped(self) -> dict[DropReason, int]:
            """Return the numbers of events dropped so far, by reason."""
            ...


__all__ = ["CapturedEvent", "Events", "capture_events", "read"]

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")


@dataclass(frozen=True)
class CapturedEvent:
    """One event, as it would be sent.

    Attributes:
        path: Endpoint: "/track", "/identify" or "/group".
        event_name: Name of the event; empty for `identify` and `group`.
        feature_name: Feature of the event; None for a custom event.
        user_id: The acting user; None for an event of `Events.unattributed`.
        group_id: The user's account; None if unknown.
        properties: Properties of the event.
        context: Context of the event: `group_id`, `source`, `event_id`, `device_type` and others.
        traits: Traits of `identify` and `group`.
        timestamp: Time of the event, in UTC.
        place: Place in the application of an event without a user, such as "module.function, line 5"; otherwise empty.
    """

    path: str
    event_name: str
    feature_name: str | None
    user_id: str | None
    group_id: str | None
    properties: dict[str, Any]
    context: dict[str, Any]
    traits: dict[str, Any]
    timestamp: datetime
    place: str = field(default="", compare=False)

    def __str__(self) -> str:
        name = self.event_name or self.path
        feature = f" feature={self.feature_name}" if self.feature_name else ""
        values = self.properties if self.path == "/track" else self.traits
        shown = {key: value for key, value in values.items() if key != "feature_name"}
        place = f", tracked by {self.place}" if self.place else ""
        return f"{name}{feature} user={self.user_id} group={self.group_id} {shown}{place}"


class Events:
    """Captured events, in their order. Reads the events so far each time: no flush is needed.

    An event of a request that has no user yet appears at the end of the request, or with the user.

    Example:
        >>> from ts_autotrack import track
        >>> from ts_autotrack.testing import capture_events
        >>> with capture_events() as events:
        ...     track("invite_sent", {"role": "admin"}, user_id="user_123")
        ...     track("invite_sent")
        >>> [event.properties["role"] for event in events.for_user("user_123")]
        ['admin']
        >>> len(events.unattributed), events.dropped
        (1, {'unattributed': 1})
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()  # several threads may read
        self._events: list[CapturedEvent] = []
        self._unattributed: list[CapturedEvent] = []

    @property
    def all(self) -> list[CapturedEvent]:
        """All events that would be sent."""
        return self._read()[0][:]

    @property
    def unattributed(self) -> list[CapturedEvent]:
        """Events without a user, which are never sent: the first 1,000, each with its place."""
        return self._read()[1][:]

    @property
    def dropped(self) -> dict[DropReason, int]:
        """Numbers of events that would not be sent, by reason: `unattributed`, `suppressed` and others."""
        self._read()
        return self._source.dropped()

    def named(self, name: str) -> list[CapturedEvent]:
        """Return the events of a feature, or with an event name."""
        return [event for event in self.all if name in (event.feature_name, event.event_name)]

    def for_user(self, user_id: str) -> list[CapturedEvent]:
        """Return the events of a user."""
        return [event for event in self.all if event.user_id == user_id]

    def one(self, name: str | None = None) -> CapturedEvent:
        """Return the only event of a feature, or with an event name; without a name, the only event.

        Raises:
            AssertionError: If there is none, or several. The message shows everything that was captured.
        """
        found = self.all if name is None else self.named(name)
        if len(found) != 1:
            wanted = "event" if name is None else f"event named {name!r}"
            message = f"expected one {wanted}, not {len(found)}. {self}"
            raise AssertionError(message)
        return found[0]

    def _read(self) -> tuple[list[CapturedEvent], list[CapturedEvent]]:
        with self._lock:
            events, unattributed = self._source.read(len(self._events), len(self._unattributed))
            self._events += [_event(*kept) for kept in events]
            self._unattributed += [_event(*kept) for kept in unattributed]
        return self._events, self._unattributed

    def __len__(self) -> int:
        return len(self._read()[0])

    def __iter__(self) -> Iterator[CapturedEvent]:
        return iter(self.all)

    def __getitem__(self, index: int) -> CapturedEvent:
        return self.all[index]

    def __str__(self) -> str:
        events, unattributed = self.all, self.unattributed
        lines = [f"Captured events ({len(events)}):", *(f"  {event}" for event in events)]
        if unattributed:
            lines += [f"Without a user, never sent ({len(unattributed)}):", *(f"  {event}" for event in unattributed)]
        others = {reason: count for reason, count in self.dropped.items() if reason != "unattributed"}
        return "\n".join([*lines, *([f"Dropped: {others}"] if others else [])])

    __repr__ = __str__


class capture_events:  # noqa: N801 - used like a function, as contextlib's are
    """Capture the events of the code under test: nothing leaves the process, and no thread starts.

    A block (`with` or `async with`), or a decorator of a test function, a coroutine function, or a class, whose methods
    `test*` it decorates. A decorated function with a parameter `events` receives the events. Generators are refused.

    Inside, the library is active, whatever the settings say: neither a key is needed, nor do `disabled`, `exporter` and
    `outbox` count. Events of all threads and tasks are captured. At the end, all state is as before: the acting user of
    the context, settings, `stats()`, `rejected()`, warnings that are logged once. Events that waited before are
    delivered afterwards; the captured events never are. Captures nest: the inner one takes its events.

    In Python 3.11 and newer, an AssertionError that leaves the block shows the captured events as a note.

    Example:
        >>> from ts_autotrack import track
        >>> @capture_events()
        ... def test_invitation(events):
        ...     track("invite_sent", user_id="user_123")
        ...     assert events.one("invite_sent").user_id == "user_123"
        >>> test_invitation()
    """

    def __init__(self) -> None:
        self._entered: list[tuple[Account, Token[Scope], Events]] = []

    def __enter__(self) -> Events:
        account, worker = client.captures.begin(client.arguments)
        events = Events(worker)
        self._entered.append((account, set_current(current()), events))
        return events

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        account, token, events = self._entered.pop()
        try:
            len(events)  # encodes the events while the settings of the test are in force
            if isinstance(error, AssertionError) and hasattr(error, "add_note") and "Captured events" not in str(error):
                error.add_note(str(events))
        finally:
            restore(token)
            client.captures.end(account)

    async def __aenter__(self) -> Events:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, test: Decorated) -> Decorated:
        """Decorate a function, a coroutine function, or the tests of a class."""
        tests: Any = test
        if not isinstance(test, type):
            return _decorated(test)  # type: ignore[no-any-return]
        for name in dir(tests):
            if name.startswith("test"):
                method = inspect.getattr_static(tests, name)
                if isinstance(method, staticmethod | classmethod):
                    setattr(tests, name, type(method)(_decorated(method.__func__)))
                elif inspect.isfunction(method):  # a fixture of pytest is none
                    setattr(tests, name, _decorated(method))
        return tests  # type: ignore[no-any-return]


def read(path: str | os.PathLike[str] | None = None) -> Events:
    """Return the events of a test server, or of this process, under `TS_AUTOTRACK_EXPORTER=memory`.

    Args:
        path: The file that TS_AUTOTRACK_JSONL_PATH named in the server's process, which writes its events there when
            the process ends. A file that `exporter="jsonl"` has written will do, too. Without a path: the events of
            this process so far.

    Raises:
        RuntimeError: Without a path, if this process does not keep its events in memory.
        OSError: If the file cannot be read.
        ValueError: If a line of the file is no event.

    Example:
        >>> import ts_autotrack
        >>> from ts_autotrack.testing import capture_events, read
        >>> with capture_events():  # keeps the events in memory, as TS_AUTOTRACK_EXPORTER=memory does
        ...     ts_autotrack.track("invite_sent", user_id="user_123")
        ...     read().one().event_name
        'invite_sent'
    """
    if path is not None:
        return Events(_File(path))
    if client.worker is None:
        client.configure()
    worker: Any = client.worker
    if worker is None or not worker.in_memory:
        message = "read(): this process keeps no events. Set TS_AUTOTRACK_EXPORTER=memory, or use capture_events()."
        raise RuntimeError(message)
    return Events(worker)


class _File:
    """The events in a file of JSON lines."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = pathlib.Path(path)

    def read(self, events: int, unattributed: int) -> tuple[list[KeptEvent], list[KeptEvent]]:
        """See `Source`. The last line may be in the middle of being written."""
        found: tuple[list[KeptEvent], list[KeptEvent]] = [], []
        *lines, _ = self._path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
                kept = KeptEvent(value["path"], json.dumps(value["item"]).encode(), value.get("place", ""))
            except (ValueError, LookupError, TypeError) as error:
                message = f"read({str(self._path)!r}): line {number} is no event ({error})"
                raise ValueError(message) from None
            found[bool(kept.place)].append(kept)
        return found[0][events:], found[1][unattributed:]

    def dropped(self) -> dict[DropReason, int]:
        """See `Source`. The file has no other drops."""
        unattributed = len(self.read(0, 0)[1])
        return {"unattributed": unattributed} if unattributed else {}


def _event(path: str, body: bytes, place: str) -> CapturedEvent:
    item = json.loads(body)
    properties, context = item.get("properties", {}), item["context"]
    return CapturedEvent(
        path=path,
        event_name=item.get("event_name", ""),
        feature_name=properties.get("feature_name"),
        user_id=item["user_id"],
        group_id=item.get("group_id", context.get("group_id")),
        properties=properties,
        context=context,
        traits=item.get("traits", {}),
        timestamp=datetime.fromisoformat(item["timestamp"].replace("Z", "+00:00")),
        place=place,
    )


def _decorated(test: Any) -> Any:
    """Return a test inside a capture of its own."""
    if inspect.isgeneratorfunction(test) or inspect.isasyncgenfunction(test):
        message = f"capture_events() on {test!r}: a generator, such as a fixture, needs a `with` block inside"
        raise TypeError(message)
    signature = inspect.signature(test)
    takes_events = "events" in signature.parameters

    def arguments(events: Events, given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "events": events} if takes_events else given

    @functools.wraps(test)
    async def call_async(*args: Any, **kwargs: Any) -> Any:
        with capture_events() as events:
            return await test(*args, **arguments(events, kwargs))

    @functools.wraps(test)
    def call(*args: Any, **kwargs: Any) -> Any:
        with capture_events() as events:
            return test(*args, **arguments(events, kwargs))

    decorated: Any = call_async if inspect.iscoroutinefunction(test) else call
    kept = [parameter for name, parameter in signature.parameters.items() if name != "events"]
    decorated.__signature__ = signature.replace(parameters=kept)
    return decorated
