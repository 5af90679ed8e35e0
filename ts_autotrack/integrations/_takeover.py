"""The mark of an open request, and its takeover: an integration that the application adds wins."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from ts_autotrack.integrations._http import FeatureRoutes

REQUEST = "ts_autotrack.request"
"""Key of an ASGI connection scope, or a WSGI environ, whose request is opened already.

In ASGI the value is True or an `AutomaticRequest`, in WSGI the outermost middleware and its `OpenResponse`.
"""
around: ContextVar[bool | None] = ContextVar("ts_autotrack_around", default=None)
"""True in an ASGI request that the application's own integration has opened; False if an automatic one has.

A WSGI application below an ASGI application gets an environ of its own, without `REQUEST`.
"""
BY_HAND = (
    "the application adds the tracking of its requests itself: the routes in the setting `features` are not tracked "
    "there. Name them in `features=` of that integration."
)


class AutomaticRequest:
    """Mark of a request that an integration has opened by itself, not by code of the application.

    Attributes:
        features: True if the settings name features by route.
        taken_over: True once an integration inside, added by the application's code, has opened a request of its own.
    """

    __slots__ = ("features", "taken_over")

    def __init__(self, features: FeatureRoutes) -> None:
        self.features = bool(features)
        self.taken_over = False


def take_over(opened: object, *, by_hand: bool = True) -> bool:
    """Return True if another integration inside takes a request over: the request was opened automatically.

    Args:
        opened: The mark of the request: the value of `REQUEST`.
        by_hand: True for an integration that the application adds: it knows no features of the settings.
    """
    if isinstance(opened, AutomaticRequest) and not opened.taken_over:
        opened.taken_over = True
        if opened.features and by_hand:
            warn_once(BY_HAND)
        return True
    return isinstance(opened, tuple) and bool(opened[0].automatic)
