"""Records captured inside a request before anybody is known: held until the request knows its user, or ends."""

from __future__ import annotations

from ts_autotrack._core.capture.buffer import CLOSED, buffer
from ts_autotrack._core.diagnostics import fault
from ts_autotrack._core.identity import request as requests

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from ts_autotrack._core.capture.record import Record
    from ts_autotrack._core.identity.request import Request

MAX_HELD = 1_000
"""Records held for one request; the oldest are recorded first, with the identity known then."""

_waiting: dict[int, Request] = {}
"""Requests with held records, by their id: a request that nobody ends must not take its records with it."""


def hold(record: Record, request: Request) -> None:
    """Hold a record, as part of the buffer's limit."""
    if buffer.full or buffer.append_limit == CLOSED:
        buffer.on_slow_path(record)  # counts the event as dropped
        return
    home = buffer.home
    home.held += 1
    _waiting[id(request)] = request
    request.held.append((record, home))
    if request.ended:  # meanwhile, in another thread
        release(request)
    elif len(request.held) > MAX_HELD:
        _record_oldest(request)


def release(request: Request) -> None:
    """Record the held events of a request, with the identity known now. Never raises."""
    while request.held:
        _record_oldest(request)
    _waiting.pop(id(request), None)


def release_all() -> None:
    """Record all held events of the present account: the process or the library ends."""
    for request in list(_waiting.values()):
        while request.held and request.held[0][1] is buffer.home:
            _record_oldest(request)
        if not request.held:
            _waiting.pop(id(request), None)


def forget() -> None:
    """Forget all held records, as a forked child needs."""
    for request in list(_waiting.values()):
        request.held.clear()
    _waiting.clear()


def _record_oldest(request: Request) -> None:
    try:
        (subject, view, moment, extras), home = request.held.popleft()
    except IndexError:  # another thread was faster
        return
    home.held -= 1
    target = home.buffer
    try:
        record = subject, view.known(asking=False), moment, extras
        if len(target.records) < target.append_limit:
            target.records.append(record)
        else:
            target.on_slow_path(record)
    except Exception as error:  # noqa: BLE001 - the barrier
        next(target.drops["fault"])
        fault("recording a held event", error)


requests.on_release = release
