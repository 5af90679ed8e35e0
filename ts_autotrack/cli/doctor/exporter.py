"""Checks of the exporter: the way to its server, or its file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ts_autotrack._core.contract import TRACK
from ts_autotrack._core.transports.jsonl import JsonLinesTransport
from ts_autotrack._core.transports.proxies import NetworkSettingError
from ts_autotrack.cli.doctor.findings import Finding
from ts_autotrack.cli.doctor.network import check_network
from ts_autotrack.cli.doctor.request import collector, make_event, thrivestack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ts_autotrack._core.config import Config

TIMEOUT = 5.0
"""Seconds to append the test event to a file."""


def check_exporter(config: Config, *, send: bool) -> Iterator[Finding]:
    """Yield the findings about the exporter in force.

    Args:
        config: Settings in force.
        send: Send the test event; a library that is off sends none.
    """
    if send and config.off_reason is not None:
        yield Finding("endpoint", "note", "the test event is not sent: the library is off", "See the findings above.")
    send = send and config.off_reason is None
    if config.exporter in (None, "thrivestack"):
        if config.server.endpoint:
            request = thrivestack(config, send=send)
            yield from check_network(config, config.server.endpoint, request)
    elif config.exporter == "otlp":
        yield from _collector(config, send=send)
    else:
        yield Finding("exporter", "note", f"exporter = {config.exporter}: nothing is sent to ThriveStack")
        if config.exporter == "jsonl" and config.jsonl_path != "-":
            yield _file_finding(config.jsonl_path, send=send)


def _collector(config: Config, *, send: bool) -> Iterator[Finding]:
    try:
        url, request = collector(send=send)
    except NetworkSettingError as error:
        yield Finding("endpoint", "error", str(error), "Correct the variable.")
        return
    yield from check_network(config, url, request)


def _file_finding(name: str, *, send: bool) -> Finding:
    path = Path(name)
    if send:
        response = JsonLinesTransport(name).send(TRACK, [make_event()], TIMEOUT)
        if response.status:
            return Finding("exporter", "ok", f"the test event is the last line of {path}")
        return Finding("exporter", "error", response.body.decode(errors="replace"), "Name another file.")
    is_writable = os.access(path, os.W_OK) if path.exists() else os.access(path.absolute().parent, os.W_OK | os.X_OK)
    if is_writable:
        return Finding("exporter", "ok", f"{path} is writable")
    do = "Name another file in TS_AUTOTRACK_JSONL_PATH, or correct its owner and mode."
    return Finding("exporter", "error", f"this user may not write to {path}", do)
