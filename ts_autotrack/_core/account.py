"""The account of one process, and of one captured test: its events, settings and worker."""

from __future__ import annotations

from ts_autotrack._core import diagnostics, snapshot
from ts_autotrack._core.capture.buffer import Buffer
from ts_autotrack._core.counters import Counters

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from ts_autotrack._core.config import Config
    from ts_autotrack._core.delivery.memory import MemoryWorker
    from ts_autotrack._core.delivery.worker import Worker


class Account:
    """Everything that a captured test has for itself.

    Attributes:
        buffer: Records of this account.
        config: Settings in force; None before they are read.
        worker: Owner of the threads; None until the first event.
        ended: The worker before, until all of its events are settled.
        counters: Counts of the events that left the buffer.
        arguments: Arguments of `configure()`.
        forced: Settings of a capture, over all arguments.
        start_at: Monotonic time of the next attempt to start a worker.
    """

    def __init__(self, buffer: Buffer | None = None) -> None:
        self.buffer = buffer or Buffer()
        self.config: Config | None = None
        self.worker: Worker | MemoryWorker | None = None
        self.ended: Worker | None = None
        self.counters = Counters()
        self.arguments: dict[str, object] = {}
        self.forced: dict[str, object] = {}
        self.start_at = 0.0
        self._replaced = 0  # values replaced by placeholders, while another account is the process's
        self._memory = diagnostics.Memory()

    def exchange(self, other: Account) -> None:
        """Exchange all contents with another account. The caller holds the drain lock and the setup lock.

        The buffers stay where they are, because captures hold references to them; their contents move.
        """
        for account, target in ((self, other.buffer), (other, self.buffer)):
            for worker in (account.worker, account.ended):
                if worker is not None:
                    worker.move_to(target)
        self.buffer.exchange(other.buffer)
        for name in ("config", "worker", "ended", "counters", "arguments", "forced", "start_at"):
            own = getattr(self, name)
            setattr(self, name, getattr(other, name))
            setattr(other, name, own)
        replaced = snapshot.placeholders.take()
        snapshot.placeholders.add(other._replaced)
        other._replaced = replaced
        diagnostics.exchange(other._memory)
