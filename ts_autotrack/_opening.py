"""What the settings ask for is opened here: where events wait, and where they go. Each kind is loaded only if used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._faults import warn_once

if TYPE_CHECKING:
    from _thread import RLock

    from ts_autotrack._backlog import Backlog
    from ts_autotrack._config import Config
    from ts_autotrack._delivery import Transport
    from ts_autotrack._stats import Counts


def open_backlog(config: Config, counts: Counts, turn: RLock) -> Backlog:
    """Make what events wait in: memory, or an outbox."""
    if config.outbox:
        try:
            from ts_autotrack._outbox import Outbox  # noqa: PLC0415
        except ImportError as error:
            warn_once("no sqlite", _NO_SQLITE.format(config.outbox, error))
        else:
            each = config.durability == "event"
            return Outbox(config.outbox, config.outbox_bytes, each=each, counts=counts, turn=turn)
    from ts_autotrack._backlog import MemoryBacklog  # noqa: PLC0415

    return MemoryBacklog()


def open_transport(config: Config) -> Transport:
    """Make what batches go to."""
    if config.exporter == "console":
        from ts_autotrack._local import ConsoleTransport  # noqa: PLC0415

        return ConsoleTransport()
    if config.exporter == "jsonl":
        from ts_autotrack._local import JsonLinesTransport  # noqa: PLC0415

        return JsonLinesTransport(config.jsonl_path)
    from ts_autotrack._transport import HttpTransport  # noqa: PLC0415

    return HttpTransport(config)


_NO_SQLITE = (
    "the outbox {} cannot be used: this Python has no SQLite ({}). Events wait in memory, where a crash of the process "
    "would lose them."
)
