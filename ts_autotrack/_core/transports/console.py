"""Transport for a developer's eyes: one line for each event on standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack._core.transports.stream import write_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ts_autotrack.typing import Response


class ConsoleTransport:
    """Prints one line for each event to standard error."""

    def send(self, path: str, bodies: Sequence[bytes], timeout: float) -> Response:
        """Print the items."""
        del timeout
        return write_to(sys.stderr, "".join(f"{describe(path, json.loads(body))}\n" for body in bodies))

    def close(self) -> None:
        """Nothing is open."""


def describe(path: str, item: dict[str, Any]) -> str:
    """Return an item as one line for a person."""
    context = item.get("context", {})
    name = item.get("event_name") or path.removeprefix("/")
    identity = f"user={item.get('user_id')} group={context.get('group_id')}"
    details = item.get("properties", item.get("traits", {}))
    return f"[ts_autotrack] {item.get('timestamp')} {name} {identity} {json.dumps(details, ensure_ascii=False)}"
