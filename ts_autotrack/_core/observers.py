"""Observers of finished requests, called on the library's own thread."""

from __future__ import annotations

import time

from ts_autotrack._core.diagnostics import warn_once
from ts_autotrack._core.forms import class_name

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from ts_autotrack.typing import FinishedRequest

    RequestObserver: TypeAlias = Callable[[FinishedRequest], object]

SLOW = 1.0
"""Seconds from which an observer delays the delivery so much that a warning says so."""

observers: tuple[RequestObserver, ...] = ()
"""Observers of this process and of its forked children."""


def observe_requests(observer: RequestObserver) -> Callable[[], None]:
    """Call `observer` after each request with events, to feed metrics such as statsd's or Prometheus'.

    The library's own thread calls the observer, once for each request, never for each event. The next request waits
    until the observer returns. If the observer raises, a warning is logged once, and delivery goes on. Events that the
    observer tracks are dropped as "suppressed". Forked children keep their parent's observers.

    Args:
        observer: Callable that takes a `ts_autotrack.typing.FinishedRequest`.

    Returns:
        A function that ends the observation.

    Raises:
        TypeError: If `observer` is not callable.

    Example:
        >>> from ts_autotrack import observe_requests
        >>> stop = observe_requests(lambda request: print(request.outcome, request.events))
        >>> stop()
    """
    if not callable(observer):
        message = f"observe_requests({observer!r}): expected a callable"
        raise TypeError(message)

    def observe(request: FinishedRequest) -> None:  # each registration ends alone, also two of the same observer
        observer(request)

    _set((*observers, observe))
    return lambda: _set(tuple(other for other in observers if other is not observe))


def tell(request: FinishedRequest) -> None:
    """Call all observers. Never raises."""
    for observe in observers:
        began = time.monotonic()
        try:
            observe(request)
        except Exception as error:  # noqa: BLE001 - the application's observer
            warn_once(
                ("observer", class_name(error)),
                f"an observer of requests raised {class_name(error)}; delivery goes on. Mend the callable given to "
                "observe_requests().",
            )
        if (took := time.monotonic() - began) > SLOW:
            warn_once(
                "slow observer",
                f"an observer of requests took {took:.1f} s, and no events were sent meanwhile. Let the callable given "
                "to observe_requests() only count.",
            )


def _set(chosen: tuple[RequestObserver, ...]) -> None:
    global observers  # noqa: PLW0603 - one list for the process
    observers = chosen
