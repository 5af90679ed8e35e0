"""Pytest plugin: stand-ins for features that WebAssembly lacks. The tests are the same as in every other run."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import ts_autotrack

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

PROJECT = Path("/project")
FILE = Path("/events.jsonl")
"""Items of the running test."""
NO_THREAD = "can't start new thread"
IMPOSSIBLE = (NO_THREAD, "does not support processes", "Function not implemented")
"""Parts of Python's messages about threads, processes and forks."""


class EventFile:
    """Stand-in for the inspector: the file of the exporter "jsonl"."""

    def items(self) -> list[dict[str, Any]]:
        """Return all items of the running test."""
        return [json.loads(line)["item"] for line in FILE.read_text().splitlines()] if FILE.exists() else []

    def __getattr__(self, name: str) -> NoReturn:
        pytest.skip(f"needs a server: inspector.{name}")


class Loop(asyncio.BaseEventLoop):
    """An event loop with timers and callbacks, and without descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = self

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for the next timer, as a selector without descriptors does."""
        assert timeout is not None, "the event loop waits for nothing"
        time.sleep(timeout)
        return []

    def _process_events(self, events: list[Any]) -> None:
        """Ignore the events of descriptors: there are none."""

    def _write_to_self(self) -> None:
        """Wake nobody: there is no other thread."""


def flush(timeout: float = 5) -> bool:
    """Deliver on the calling thread. Where no thread can be started, only `shutdown` does so."""
    delivered = ts_autotrack.shutdown(timeout)
    ts_autotrack.configure()
    return delivered


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: Any) -> EventFile | None:
    """Replace the inspector, and skip tests with other servers."""
    if fixturedef.argname in {"server", "dead_endpoint"}:
        pytest.skip("needs a server")
    if fixturedef.argname not in {"inspector_process", "inspector"}:
        return None
    FILE.unlink(missing_ok=True)
    ts_autotrack.configure(exporter="jsonl", jsonl_path=FILE)
    events = EventFile()
    fixturedef.cached_result = (events, fixturedef.cache_key(request), None)
    return events


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Skip a test at the moment in which it starts a thread or a process."""
    try:
        return (yield)
    except (OSError, RuntimeError) as error:
        if any(text in str(error) for text in IMPOSSIBLE):
            pytest.skip(f"needs a thread or a process: {error}")
        raise


def main(words: Sequence[str]) -> int:
    """Run pytest and return its exit status."""
    asyncio._set_running_loop(None)  # the loop of JavaScript, which a synchronous test cannot wait for
    run: Any = asyncio.runners.run
    vars(asyncio)["run"] = functools.partial(run, loop_factory=Loop)
    vars(time)["thread_time"] = time.process_time
    vars(ts_autotrack)["flush"] = flush
    logging.getLogger("ts_autotrack").addFilter(lambda record: NO_THREAD not in record.getMessage())
    print(f"Python {sys.version.split()[0]} on {sys.platform}")
    os.chdir(PROJECT)
    return int(pytest.main(["-pno:cacheprovider", *words], plugins=[sys.modules[__name__]]))
