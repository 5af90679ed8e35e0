"""A server for the requests of all contenders, which counts the events; runs in its own process.

`arrived` asks the server for the count.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import math
import sys
import time
from http.client import HTTPConnection

MARKER = b"benchmark_feature"
"""Text found once in every contender's event, in any encoding."""
BODY = b'{"success": true, "status": 1, "code": 200}'  # answer expected by the vendor, mixpanel and amplitude
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"

seen = 0


class Sink(asyncio.Protocol):
    """Reads bodies by content-length. `GET /seen` answers with the number of events received so far."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()
        self._head, self._left = b"", 0

    def data_received(self, data: bytes) -> None:
        """Answer each request once its body is complete."""
        self._received += data
        while True:
            if not self._head:
                head, end, rest = self._received.partition(b"\r\n\r\n")
                if not end:
                    return
                self._head, self._received = bytes(head).lower(), rest
                self._left = int(self._head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._received) < self._left:
                return
            self._answer(bytes(self._received[: self._left]))
            del self._received[: self._left]
            self._head = b""

    def _answer(self, body: bytes) -> None:
        global seen  # noqa: PLW0603 - counts for all connections
        if b"content-encoding: gzip" in self._head:
            body = gzip.decompress(body)
        seen += body.count(MARKER)
        content = b"%d" % seen if self._head.startswith(b"get /seen ") else BODY
        self._transport.write(ANSWER % (len(content), content))


def arrived(url: str, enough: float = math.inf) -> int:
    """Return the sink's number of events, once there are `enough` or no more arrive."""
    with contextlib.closing(HTTPConnection(url.removeprefix("http://"))) as connection:
        last = -1
        while True:
            connection.request("GET", "/seen")
            now = int(connection.getresponse().read())
            if now >= enough or now == last:
                return now
            last = now
            time.sleep(0.2)


async def main() -> None:
    """Serve on a free port and print the port."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
