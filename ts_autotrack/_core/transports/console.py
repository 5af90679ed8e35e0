"""Transport for a developer's eyes: one line for each event on standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.redaction import printable
from ts_autotrack._core.transports.stream import StreamWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.typing import Response


class ConsoleTransport:
    """Prints one line for each event to standard error."""

    def __init__(self) -> None:
        self._stream = StreamWriter()

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Print the items."""
        lines = [f"{describe(path, json.loads(body))}\n".encode() for body in bodies]
        return self._stream.write(sys.stderr, lines, timeout)

    def close(self) -> None:
        """Nothing is open."""


def describe(path: str, item: dict[str, Any]) -> str:
    """Return an item as one line for a person, without control characters."""
    context = item.get("context", {})
    name = item.get("event_name") or path.removeprefix("/")
    identity = f"user={item.get('user_id')} group={context.get('group_id')}"
    details = item.get("properties", item.get("traits", {}))
    shown = json.dumps(details, ensure_ascii=False)
    return printable(f"[ts_autotrack] {item.get('timestamp')} {name} {identity} {shown}")
