"""is_tracked: the question of integrations that would otherwise make a second event for one call."""

from __future__ import annotations

import functools
from unittest.mock import MagicMock

from ts_autotrack import is_tracked, track_feature


class Shop:
    """A class with a tracked method."""

    @track_feature("sale")
    def sell(self) -> None:
        """Be tracked."""

    def refund(self) -> None:
        """Be no feature."""


@track_feature("plain")
def plain() -> None:
    """Be tracked."""


@track_feature("captured", capture=["value"])
async def captured(value: int) -> int:
    """Be tracked with a wrapper."""
    return value


@functools.wraps(plain)
def behind() -> None:
    """Be another decorator's wrapper around a tracked function."""


def test_decorated_callables_are_tracked() -> None:
    """Functions, methods, partials, proxies, and what other decorators wrap around these."""
    proxy = track_feature("print")(functools.partial(print))
    for target in (plain, captured, behind, Shop.sell, Shop().sell, proxy, functools.partial(behind)):
        assert is_tracked(target), target


def test_other_objects_are_not() -> None:
    """Undecorated callables, other objects, and objects with every attribute."""
    for target in (print, Shop, Shop().refund, functools.partial(print), None, 7, MagicMock()):
        assert not is_tracked(target), target
