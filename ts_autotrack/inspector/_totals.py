"""Counters of entries, by feature and account, since the store was made or cleared."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CELLS = 20_000
"""Pairs of feature and account; the pair whose last event is the longest ago is forgotten."""
SHOWN = 200
"""Features, and accounts, in one answer to GET /matrix: the busiest."""
MINUTES = 30
"""Minutes with a count of their own."""


class Cell:
    """Events of one feature by one account."""

    __slots__ = ("count", "last_at", "minutes")

    def __init__(self) -> None:
        self.count = 0
        self.last_at = ""
        self.minutes: dict[int, int] = {}

    def add(self, count: int, minute: int, at: str) -> None:
        """Count new events."""
        self.count += count
        self.last_at = max(self.last_at, at)
        self.minutes[minute] = self.minutes.get(minute, 0) + count
        if len(self.minutes) > MINUTES:
            del self.minutes[next(iter(self.minutes))]

    def per_minute(self, minute: int) -> list[int]:
        """Return the counts of the last minutes up to `minute`."""
        return [self.minutes.get(earlier, 0) for earlier in range(minute - MINUTES + 1, minute + 1)]


class Totals:
    """Counters of accepted and refused entries."""

    def __init__(self, accepted: int = 0, refused: int = 0) -> None:
        self._accepted = accepted
        self._refused = refused
        self._cells: dict[tuple[str, str | None], Cell] = {}

    def load(self, rows: Sequence[tuple[str, str | None, int, int, str]]) -> None:
        """Take over counts of a database: feature, account, minute, number of events, time of the last event."""
        for feature, account, minute, count, last_at in rows:
            self._cell(feature, account).add(count, minute, last_at)

    def add(self, path: str, used: list[tuple[str, str | None]], at: str) -> None:
        """Count the accepted items of one request by feature and account."""
        self._accepted += len(used)
        if path != "/track":
            return
        minute = int(time.time() // 60)
        for key, count in Counter(used).items():
            self._cell(*key).add(count, minute, at)

    def refuse(self) -> None:
        """Count one refused request."""
        self._refused += 1

    def clear(self) -> None:
        """Begin anew."""
        self._accepted = self._refused = 0
        self._cells.clear()

    def counts(self) -> dict[str, Any]:
        """Return the answer to GET /counts."""
        by_feature: Counter[str] = Counter()
        for (feature, _), cell in self._cells.items():
            by_feature[feature] += cell.count
        return {"accepted": self._accepted, "refused": self._refused, "by_feature": dict(by_feature.most_common())}

    def matrix(self) -> dict[str, Any]:
        """Return the answer to GET /matrix: the busiest features and accounts first."""
        features: Counter[str] = Counter()
        accounts: Counter[str | None] = Counter()
        for (feature, account), cell in self._cells.items():
            features[feature] += cell.count
            accounts[account] += cell.count
        top_features = [name for name, _ in features.most_common(SHOWN)]
        top_accounts = [name for name, _ in accounts.most_common(SHOWN)]
        shown_features, shown_accounts = set(top_features), set(top_accounts)
        minute = int(time.time() // 60)
        return {
            "features": top_features,
            "accounts": top_accounts,
            "cells": [
                {
                    "feature": feature,
                    "account": account,
                    "count": cell.count,
                    "last_at": cell.last_at,
                    "per_minute": cell.per_minute(minute),
                }
                for (feature, account), cell in self._cells.items()
                if feature in shown_features and account in shown_accounts
            ],
        }

    def _cell(self, feature: str, account: str | None) -> Cell:
        """Return the cell of a pair, the latest from now on."""
        cell = self._cells.pop((feature, account), None) or Cell()
        self._cells[feature, account] = cell
        if len(self._cells) > MOST_CELLS:
            del self._cells[next(iter(self._cells))]
        return cell
