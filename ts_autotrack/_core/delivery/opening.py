"""What the settings ask for is opened here: where events wait, and where they go. Each kind is loaded only if used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core.diagnostics import warn_once

if TYPE_CHECKING:
    from _thread import RLock

    from ts_autotrack._core.config import Config
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.exporter import Transport
    from ts_autotrack._core.delivery.queue import EventQueue


def open_backlog(config: Config, counts: Counters, turn: RLock) -> EventQueue:
    """Make what events wait in: memory, or an outbox."""
    if config.outbox:
        try:
            from ts_autotrack._core.outbox.outbox import Outbox  # noqa: PLC0415
        except ImportError as error:
            warn_once("no sqlite", _NO_SQLITE.format(config.outbox, error))
        else:
            per_event = config.durability == "event"
            return Outbox(config.outbox, config.outbox_bytes, per_event=per_event, counters=counts, lock=turn)
    from ts_autotrack._core.delivery.queue import MemoryQueue  # noqa: PLC0415

    return MemoryQueue()


def open_transport(config: Config) -> Transport:
    """Make what batches go to."""
    if config.exporter == "console":
        from ts_autotrack._core.transports.local import ConsoleTransport  # noqa: PLC0415

        return ConsoleTransport()
    if config.exporter == "jsonl":
        from ts_autotrack._core.transports.local import JsonLinesTransport  # noqa: PLC0415

        return JsonLinesTransport(config.jsonl_path)
    from ts_autotrack._core.transports.http import HttpTransport  # noqa: PLC0415

    return HttpTransport(config)


_NO_SQLITE = (
    "the outbox {} cannot be used: this Python has no SQLite ({}). Events wait in memory, where a crash of the process "
    "would lose them."
)
