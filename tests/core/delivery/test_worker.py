"""The worker's thread beside the application's log handlers."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import Answer, ScriptedServer, wait_until
from tests.core.conftest import account_closes, names
from ts_autotrack import flush, shutdown, track
from ts_autotrack.typing import Stats

pytestmark = pytest.mark.usefixtures("acting")


def test_log_handler_that_raises_or_flushes_stops_nothing(server: ScriptedServer) -> None:
    """An application's log handler may raise, track and flush while handling the library's records."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            track("from the handler", user_id="u")
            flush(5)
            shutdown_later.append(record)
            raise LookupError

    shutdown_later: list[logging.LogRecord] = []
    handler = Handler()
    logging.getLogger("ts_autotrack").addHandler(handler)
    try:
        server.script.append(Answer(200, b'{"warnings": ["something"]}'))
        track("e")
        wait_until(lambda: shutdown_later, "the record")
        track("after")
        assert flush(5)
    finally:
        logging.getLogger("ts_autotrack").removeHandler(handler)
    assert names(server.items) == ["e", "after"]
    assert account_closes().dropped == {"suppressed": 1}


def test_log_handler_that_shuts_down(server: ScriptedServer) -> None:
    """`shutdown` in a log handler, which runs on the library's own thread, returns and takes effect."""

    class Handler(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            done.append(shutdown(5))

    done: list[bool] = []
    handler = Handler()
    logging.getLogger("ts_autotrack").addHandler(handler)
    try:
        server.script.append(Answer(200, b'{"warnings": ["something"]}'))
        track("e")
        wait_until(lambda: done, "the record")
    finally:
        logging.getLogger("ts_autotrack").removeHandler(handler)
    track("late")
    assert done == [True]
    assert account_closes() == Stats(2, 1, 0, 0, {"shutdown": 1})
