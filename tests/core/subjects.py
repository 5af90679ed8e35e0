"""Callables to decorate: importable by name, so they can be pickled and sent to other processes."""

from __future__ import annotations

import asyncio
import functools
from types import MethodType
from typing import TYPE_CHECKING, Any

import wrapt

from ts_autotrack import track_feature

if TYPE_CHECKING:
    from collections.abc import Callable


@track_feature("module_level", capture=["value"])
def module_level(value: int = 1) -> int:
    """Return the value."""
    return value


module_partial = track_feature("partial")(functools.partial(module_level, 3))


class Shop:
    """Methods of every kind, decorated in either order."""

    @track_feature("plain", capture=["amount"])
    def plain(self, amount: int) -> int:
        """Return the amount."""
        return amount

    @track_feature("class_outside", capture=["amount"])
    @classmethod
    def class_outside(cls, amount: int) -> tuple[type, int]:
        """Return the class."""
        return cls, amount

    @classmethod
    @track_feature("class_inside", capture=["amount"])
    def class_inside(cls, amount: int) -> tuple[type, int]:
        """Return the class."""
        return cls, amount

    @track_feature("static_outside", capture=["amount"])
    @staticmethod
    def static_outside(amount: int) -> int:
        """Return the amount."""
        return amount

    @staticmethod
    @track_feature("static_inside", capture=["amount"])
    def static_inside(amount: int) -> int:
        """Return the amount."""
        return amount

    @property
    @track_feature("below_property")
    def below_property(self) -> int:
        """Return one."""
        return 1


class Callable3:
    """A callable object."""

    size = 3

    def __call__(self, amount: int) -> int:
        """Return the sum."""
        return amount + self.size


class AsyncCallable:
    """A callable object with a coroutine as its call."""

    async def __call__(self) -> str:
        """Return a text."""
        await asyncio.sleep(0)
        return "awaited"


@wrapt.decorator
def by_wrapt(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
    """Do nothing, like other libraries' decorators."""
    return wrapped(*args, **kwargs)


@track_feature("cached")
@functools.lru_cache
def cached(value: int) -> int:
    """Return the value."""
    return value


class BindsItsFunction:
    """Descriptor of another library: its methods are plain, of the function inside."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.function(*args)

    def __get__(self, instance: object, owner: object = None) -> Any:
        """Return a plain method."""
        return self if instance is None else MethodType(self.function, instance)


class Library:
    """Methods that are no plain functions."""

    def plain(self, value: int) -> int:
        """Return the value."""
        return value

    @track_feature("cached_method", capture=["value"])
    @functools.lru_cache  # noqa: B019 - the test's point
    def cached(self, value: int) -> int:
        """Return the value."""
        return value

    @track_feature("by_wrapt", capture=["value"])
    @by_wrapt
    def by_wrapt(self, value: int) -> int:
        """Return the value."""
        return value

    @track_feature("by_descriptor", capture=["value"])
    @BindsItsFunction
    def by_descriptor(self, value: int) -> int:
        """Return the value."""
        return value
