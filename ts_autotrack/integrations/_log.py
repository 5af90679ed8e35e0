"""Warnings of the integrations: faults that never reach the application."""

from __future__ import annotations

import functools
import logging

_logger = logging.getLogger("ts_autotrack")


@functools.lru_cache(maxsize=1_000)
def warn_once(message: str, *values: str) -> None:
    """Log a warning, once for each message with these values.

    Args:
        message: Text with a `%s` for each value.
        *values: Names, such as a method's; of an exception its class only: the `repr` of a foreign object may raise.
    """
    _logger.warning("ts_autotrack: %s", message % values if values else message)
