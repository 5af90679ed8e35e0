"""Callables that are not plain functions: partials, builtins, callable objects, what other decorators made of them."""

from __future__ import annotations

import sys
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any

import wrapt

from ts_autotrack._core.decorate import decorate, drop_frame, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.decorate import Decorator


class Proxy(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """Behaves like what it wraps: attributes, signature and binding are wrapt's work, copy and pickle are ours."""

    def __init__(self, decorator: Decorator, target: Any) -> None:
        wrap = decorator.prepare(target, kind_of(target))
        direct = wrap(target)

        def through(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                if wrapped is target:
                    return direct(*args, **kwargs)
                bound = getattr(wrapped, "__self__", None) is not None  # not what a staticmethod-like descriptor gives
                return wrap(wrapped, bound=bound)(*args, **kwargs)
            except BaseException as error:
                drop_frame(error)
                raise

        super().__init__(target, through)
        self._self_decorator = decorator

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(getattr(self, "__module__", None) or "")
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name  # like a function, by its name
        return decorate, (self._self_decorator, self.__wrapped__)

    def __reduce_ex__(self, _: Any) -> Any:
        return self.__reduce__()

    def __copy__(self) -> Any:
        if copy(self.__wrapped__) is self.__wrapped__:
            return self
        return decorate(self._self_decorator, self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if deepcopy(self.__wrapped__, memo) is self.__wrapped__:
            return self
        return decorate(self._self_decorator, deepcopy(self.__wrapped__, memo))
