"""Builds the delivery stack that the settings ask for.

Importing this module imports the common part of the stack. The functions import the chosen transport and the outbox on
the caller's thread, never on a thread of this library: two threads that enter one package by different modules break
each other's import locks.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from ts_autotrack._core.delivery.destination import Destination
from ts_autotrack._core.delivery.drainer import Drainer
from ts_autotrack._core.delivery.encoder import Encoder
from ts_autotrack._core.delivery.queue import MemoryQueue
from ts_autotrack._core.delivery.worker import Worker
from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.outbox.reports import ReportFile

if TYPE_CHECKING:
    from _thread import RLock
    from collections.abc import Callable

    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.backoff import Pacing
    from ts_autotrack._core.delivery.memory import MemoryWorker
    from ts_autotrack._core.delivery.queue import EventQueue
    from ts_autotrack._core.outbox.outbox import Outbox
    from ts_autotrack._core.process.fork import ForkGuard
    from ts_autotrack.typing import Transport


def import_stack(config: Config) -> None:
    """Import the modules that these settings need."""
    if config.exporter == "memory":
        import ts_autotrack._core.delivery.memory  # noqa: F401 - for later

        return
    transport_opener(config)
    if config.outbox.directory:
        _outbox_class(config.outbox.directory)


def transport_opener(config: Config) -> Callable[[], Transport]:
    """Import the transport of these settings, and return a function that opens one."""
    if config.exporter == "console":
        from ts_autotrack._core.transports.console import ConsoleTransport

        return ConsoleTransport
    if config.exporter == "jsonl":
        from ts_autotrack._core.transports.jsonl import JsonLinesTransport

        return partial(JsonLinesTransport, config.jsonl_path)
    if config.exporter == "otlp":
        from ts_autotrack._core.transports.otlp import OtlpTransport

        return OtlpTransport
    from ts_autotrack._core.transports.http import HttpTransport

    return partial(HttpTransport, config.server)


def reconfigure(worker: Worker | MemoryWorker, config: Config) -> None:
    """Let a worker use other settings."""
    if isinstance(worker, Worker):
        worker.reconfigure(config, transport_opener(config))
    else:
        worker.reconfigure(config)


def build_worker(
    config: Config,
    buffer: Buffer,
    counters: Counters,
    forks: ForkGuard,
    predecessor: Worker | None,
    pacing: Pacing,
) -> Worker | MemoryWorker:
    """Return a worker for these settings; its threads start with the first record."""
    if config.exporter == "memory":
        from ts_autotrack._core.delivery.memory import MemoryWorker

        return MemoryWorker(config, buffer, counters, forks.drain_lock)
    if config.outbox.directory and not forks.sqlite_usable:
        warn_once("sqlite in use", _SQLITE_IN_USE.format(config.outbox.directory))
        queue: EventQueue = MemoryQueue()
    else:
        queue = _open_queue(config, counters, forks.drain_lock)
    drainer = Drainer(buffer, Encoder(counters), queue, counters, forks.drain_lock)
    destination = Destination(config, transport_opener(config), forks.setup_lock, forks.request_lock)
    directory = config.outbox.directory
    report_file = ReportFile(directory) if directory and os.name == "posix" else None
    return Worker(drainer, counters, destination, pacing, predecessor, forks.main_thread_ended, report_file)


def _open_queue(config: Config, counters: Counters, lock: RLock) -> EventQueue:
    settings = config.outbox
    outbox = _outbox_class(settings.directory) if settings.directory else None
    if outbox is None or settings.directory is None:
        return MemoryQueue()
    per_event = settings.durability == "event"
    return outbox(settings.directory, settings.max_bytes, per_event=per_event, counters=counters, lock=lock)


def _outbox_class(directory: str) -> type[Outbox] | None:
    try:
        from ts_autotrack._core.outbox.outbox import Outbox
    except ImportError as error:  # some builds of Python lack SQLite
        warn_once("no sqlite", _NO_SQLITE.format(directory, error))
        return None
    return Outbox


_NO_SQLITE = (
    "the outbox {} cannot be used: this Python has no SQLite ({}). Events wait in memory, where a crash of the process "
    "would lose them."
)
_SQLITE_IN_USE = (
    "the outbox {} cannot be used in this process: C code forked it while its parent used SQLite. Events wait in "
    "memory, where a crash of the process would lose them."
)
