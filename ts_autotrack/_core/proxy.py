"""Proxies of unusual callables: partials, builtins, callable objects, results of other decorators."""

from __future__ import annotations

import sys
from copy import copy, deepcopy
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import wrapt

from ts_autotrack._core.callables import attribute, drop_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack._core.callables import Decorator, Wrap

PROTOCOLS = (
    *("__len__", "__iter__", "__contains__", "__reversed__", "__getitem__", "__setitem__", "__delitem__", "__next__"),
    *("__enter__", "__exit__", "__await__", "__aiter__", "__anext__", "__aenter__", "__aexit__"),
    *("__hash__", "__bytes__", "__int__", "__float__", "__complex__", "__index__", "__round__", "__abs__"),
    *("__fspath__", "__length_hint__", "__get__", "__set_name__"),
)
"""Methods by which Python and `collections.abc` tell what an object can do. A proxy has those of its target only."""

FALLBACKS = {
    "__iter__": {"__getitem__"},
    "__reversed__": {"__getitem__"},
    "__contains__": {"__iter__", "__getitem__"},
    "__bytes__": {"__iter__", "__getitem__", "__index__"},
    "__int__": {"__index__"},
    "__float__": {"__index__"},
    "__complex__": {"__float__", "__index__"},
}
"""Methods that Python replaces by others, if an object has the others. wrapt's method does the same."""

_READ = wrapt.CallableObjectProxy.__getattribute__
_READ_OWN = object.__getattribute__
"""Reads an attribute of the proxy itself, in a quarter of the time of `Proxy.__getattribute__`."""
_classes: dict[tuple[type, frozenset[str], bool], Any] = {}
"""Class of proxies by base, by the protocols of the target, and by True if Python takes the target for a sequence."""


def proxied(decorator: Decorator, target: Any) -> Any:
    """Return a proxy of `target` whose calls go through `decorator`."""
    wrap = decorator.prepare(target)
    if type(target) is MethodType:
        return _proxied_method(decorator, wrap, target)
    return _proxy_class(type(target))(decorator, target, wrap)


class Proxy(wrapt.CallableObjectProxy):  # type: ignore[type-arg]
    """Transparent proxy: wrapt handles attributes and signature; this class handles calls, binding, copy and pickle."""

    def __init__(self, decorator: Decorator, target: Any, wrap: Wrap, *, bound: bool = False) -> None:
        super().__init__(target)
        self._self_decorator = decorator
        self._self_wrap = wrap
        self._self_call = wrap(target, bound=bound)
        self._self_inner: Any = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return _READ_OWN(self, "_self_call")(*args, **kwargs)
        except BaseException as error:
            drop_frame(error)
            raise

    def __getattribute__(self, name: str) -> Any:
        value = _READ(self, name)
        if value is None and name in PROTOCOLS:
            raise AttributeError(name)  # of the class, where None marks an absent protocol
        return value

    def __reduce__(self) -> Any:
        name, module = attribute(self, "__qualname__"), attribute(self, "__module__")
        if type(name) is str and type(module) is str:
            found: Any = sys.modules.get(module)
            for part in name.split("."):
                found = attribute(found, part)
            if found is self:
                return name  # pickled by its name, as functions are
        return self._self_decorator, (self.__wrapped__,)

    def __reduce_ex__(self, _: Any) -> Any:
        return self.__reduce__()

    def __copy__(self) -> Any:
        twin = copy(self.__wrapped__)
        return self if twin is self.__wrapped__ else self._self_decorator(twin)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = deepcopy(self.__wrapped__, memo)
        return self if twin is self.__wrapped__ else self._self_decorator(twin)


class _BoundProxy(Proxy):
    """Proxy of the result of a descriptor that is no plain method: a bound method of another library, for example."""

    def __reduce__(self) -> Any:
        owner, name = attribute(self, "__self__"), attribute(self, "__name__")
        found: Any = attribute(owner, name) if type(name) is str else None
        if type(found) is type(self) and found.__wrapped__ == self.__wrapped__:
            return getattr, (owner, name)  # as methods are
        return super().__reduce__()

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        make, parts = self.__reduce__()
        return make(*deepcopy(parts, memo)) if make is getattr else super().__deepcopy__(memo)


def _proxied_method(decorator: Decorator, wrap: Wrap, method: MethodType) -> Any:
    """Return a proxy of a bound method, with a class of its own: `WeakMethod` calls the class to bind again."""
    base = _proxy_class(MethodType)

    class Method(base):  # type: ignore[misc,valid-type]
        def __init__(self, function: Callable[..., Any], instance: object) -> None:
            super().__init__(decorator, MethodType(function, instance), wrap)

    return Method(method.__func__, method.__self__)


def _proxy_class(kind: type, base: type[Proxy] = Proxy) -> Any:
    """Return the class of proxies for targets of a class."""
    protocols = frozenset(name for name in PROTOCOLS if _has(kind, name))
    is_sequence = type(_find(kind, "__getitem__")) is FunctionType  # a method of C makes a mapping
    key = (base, protocols, is_sequence)
    if key not in _classes:
        refused = {name for name in PROTOCOLS if _has(base, name)} | {"__iter__", "__reversed__"}
        refused -= protocols
        refused -= {name for name, others in FALLBACKS.items() if others & protocols}
        members: dict[str, Any] = dict.fromkeys(refused)
        members |= {name: _forward(name) for name in protocols if not _has(base, name)}
        if is_sequence:
            members["__getitem__"] = _forward("__getitem__")
        if "__get__" in protocols:
            members["__get__"] = _bind
        _classes[key] = type(base.__name__, (base,), members)
    return _classes[key]


def _has(kind: type, name: str) -> bool:
    return _find(kind, name) is not None


def _find(kind: type, name: str) -> object:
    """Return a method of a class, read without descriptors: these may have effects."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _forward(name: str) -> Callable[..., Any]:
    def method(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.__wrapped__, name)(*args, **kwargs)

    return method


def _bind(self: Any, instance: object, owner: type | None = None) -> Any:
    """Bind as the target does. A plain method stays a plain method, of a proxy: it can be pickled and referred to."""
    target = self.__wrapped__
    bound = target.__get__(instance, owner)
    if bound is target:
        return self
    if type(bound) is MethodType:
        return MethodType(self if bound.__func__ is target else _inner(self, bound.__func__), bound.__self__)
    if not callable(bound):
        return bound
    has_self = attribute(bound, "__self__") is not None  # a staticmethod-like descriptor binds nothing
    return _proxy_class(type(bound), _BoundProxy)(self._self_decorator, bound, self._self_wrap, bound=has_self)


def _inner(self: Any, function: Any) -> Any:
    """Return the proxy of the function that a descriptor binds: the same for each binding, as weak references need."""
    if self._self_inner is None or self._self_inner.__wrapped__ is not function:
        self._self_inner = _proxy_class(type(function))(self._self_decorator, function, self._self_wrap)
    return self._self_inner
