"""The parts of one running inspector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack.inspector._fault import Fault
    from ts_autotrack.inspector._reports import Reports
    from ts_autotrack.inspector._search import Search
    from ts_autotrack.inspector._store import Store
    from ts_autotrack.inspector._stream import Feed
    from ts_autotrack.inspector._totals import Totals


class State(NamedTuple):
    """The parts of one running inspector.

    Attributes:
        store: Entries and requests.
        search: Reads the store in slices.
        totals: Counters of the entries.
        reports: Reports of processes.
        faults: Active faults.
        feed: Wakes the readers of streams.
        show: Called with one line per received event; None without an output.
    """

    store: Store
    search: Search
    totals: Totals
    reports: Reports
    faults: list[Fault]
    feed: Feed
    show: Callable[[str], None] | None

    def active_faults(self) -> list[dict[str, Any]]:
        """Return the active faults as JSON objects."""
        return [fault._asdict() for fault in self.faults]
