"""What the buffer holds is encoded and kept, on whichever thread has the turn: a caller's, or one of the library's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ts_autotrack._core import diagnostics

if TYPE_CHECKING:
    from _thread import RLock

    from ts_autotrack._core.capture.buffer import Buffer
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.counters import Counters
    from ts_autotrack._core.delivery.intake import Intake
    from ts_autotrack._core.delivery.queue import Item


class Keeping:
    """Loads what is needed for it with the first use, which takes some milliseconds.

    Attributes:
        turn: The process's. Held by whoever encodes or uses the outbox. Never waited for by a caller, unless every
            event is to be on disk before the call returns.
    """

    def __init__(
        self,
        buffer: Buffer,
        counts: Counters,
        config: Config,
        loading: RLock,
        turn: RLock,
    ) -> None:
        self.turn = turn
        self._buffer = buffer
        self._counts = counts
        self._config = config
        self._loading = loading
        self._intake: Intake | None = None
        self._closed = False

    @property
    def has_turn(self) -> bool:
        """Whether the turn is this thread's: a finalizer or signal handler inside of it can wait for nothing."""
        return self.turn._is_owned()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001

    @property
    def pending(self) -> int:
        """Events that are kept and not settled."""
        return self._intake.backlog.pending if self._intake else 0

    @property
    def durable(self) -> int:
        """How many of them survive the process."""
        return self._intake.backlog.durable if self._intake else 0

    @property
    def takes(self) -> bool:
        """Whether more can be kept at the moment."""
        return self._intake is not None and self._intake.backlog.capacity > 0

    def load(self) -> Intake:
        """Import what is needed. The turn comes before the lock on imports, everywhere."""
        with self.turn, self._loading:
            if self._intake is None:
                from ts_autotrack._core.delivery.encoder import Encoder  # noqa: PLC0415
                from ts_autotrack._core.delivery.intake import Intake  # noqa: PLC0415
                from ts_autotrack._core.delivery.opening import open_backlog  # noqa: PLC0415

                backlog = open_backlog(self._config, self._counts, self.turn)
                self._intake = Intake(self._buffer, Encoder(self._counts), backlog, self._counts)
            return self._intake

    def run(self) -> bool:
        """Have what the buffer holds kept now; return False if that has to wait, or has failed. Never raises."""
        if self.has_turn or self._loading._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001
            return False  # a finalizer or signal handler: its record is taken later
        try:
            # `with` takes and gives the lock back even if a signal handler raises; `try` and `finally` do not.
            with self.turn:
                if self._closed:
                    return False  # the buffer is another worker's by now
                (self._intake or self.load()).run()
        except Exception as error:  # noqa: BLE001 - the barrier
            diagnostics.fault("keeping events", error)
            return False
        return True

    def run_within(self, seconds: float) -> bool:
        """`run`, but wait for the turn for so long at the most: at the end of the process nobody may give it back."""
        if self.has_turn or not self.turn.acquire(timeout=seconds):
            return False
        self.turn.release()
        return self.run()

    def close(self) -> list[Item]:
        """End, and return the items that are in memory only."""
        with self.turn:
            self._closed = True
            return self._intake.backlog.close() if self._intake else []

    def open_buffer(self) -> None:
        """Let captures append by themselves, as far as there is room beside what waits encoded."""
        if self._intake is not None:
            self._buffer.queued = self.pending - self.durable
        self._buffer.allow_appends()
