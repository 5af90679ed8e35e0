"""The transport that the settings in force ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _thread import LockType, RLock
    from collections.abc import Callable

    from ts_autotrack._core.config import Config
    from ts_autotrack.typing import Transport


class Destination:
    """Opens a transport at its first use after a change of the settings, on the sender's thread.

    Attributes:
        config: Settings in force.
        request_lock: Held during each request of this process.
    """

    def __init__(
        self, config: Config, open_transport: Callable[[], Transport], lock: RLock, request_lock: LockType
    ) -> None:
        self.config = config
        self.request_lock = request_lock
        self._lock = lock  # a fork in the middle of OpenSSL's initialization would leave a locked OpenSSL in the child
        self._open = open_transport
        self._opened: tuple[Config, Transport] | None = None

    def change(self, config: Config, open_transport: Callable[[], Transport]) -> None:
        """Use other settings from the next request on. A request to another server ends now: it may hang."""
        previous, self._open, self.config = self.config, open_transport, config
        if config.server != previous.server or config.exporter != previous.exporter:
            self.cancel()

    def cancel(self) -> None:
        """End the request in progress. Any thread may call this method."""
        opened = self._opened
        cancel = getattr(opened[1], "cancel", None) if opened is not None else None
        if cancel is not None:
            cancel()

    def transport(self) -> tuple[Transport, bool]:
        """Return the transport, and True if it is new.

        Raises:
            Exception: If the transport cannot be opened, as with an unusable proxy setting.
        """
        config = self.config
        if self._opened is not None and self._opened[0] is config:
            return self._opened[1], False
        self.close()
        with self._lock:
            self._opened = (config, self._open())
        return self._opened[1], True

    @property
    def opened(self) -> Transport | None:
        """The open transport of the settings in force; None if it is not open."""
        opened = self._opened
        return opened[1] if opened is not None and opened[0] is self.config else None

    def close(self) -> None:
        """Close the transport."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()
