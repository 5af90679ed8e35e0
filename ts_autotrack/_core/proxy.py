"""Proxies of unusual callables: partials, builtins, callable objects, results of other decorators."""

from __future__ import annotations

import sys
from copy import copy, deepcopy
from typing import TYPE_CHECKING, Any

import wrapt

from ts_autotrack._core.callables import drop_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.callables import Decorator


class Proxy(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """Transparent proxy: wrapt handles attributes, signature and binding; this class handles copy and pickle."""

    def __init__(self, decorator: Decorator, target: Any) -> None:
        wrap = decorator.prepare(target)
        direct = wrap(target)

        def through(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            try:
                if wrapped is target:
                    return direct(*args, **kwargs)
                bound = getattr(wrapped, "__self__", None) is not None  # a staticmethod-like descriptor binds nothing
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
            return name  # pickled by its name, as functions are
        return self._self_decorator, (self.__wrapped__,)

    def __reduce_ex__(self, _: Any) -> Any:
        return self.__reduce__()

    def __copy__(self) -> Any:
        if copy(self.__wrapped__) is self.__wrapped__:
            return self
        return self._self_decorator(self.__wrapped__)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if deepcopy(self.__wrapped__, memo) is self.__wrapped__:
            return self
        return self._self_decorator(deepcopy(self.__wrapped__, memo))
