"""The function behind a name, found without running code of the application: no `__getattr__`, no property."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack._core.callables import attribute, inner_functions, wrapped_objects
from ts_autotrack._core.parsers import did_you_mean

if TYPE_CHECKING:
    from types import FunctionType, ModuleType

ANSWERING_NAMES = frozenset({"cache", "cache_clear", "cache_info", "cache_key", "cache_parameters", "dispatch"})
"""Attributes of `functools.lru_cache`, cachetools, `functools.singledispatch` and others.

They answer calls without the function inside: from a cache, or by another function.
"""


class NotFoundError(LookupError):
    """A name leads to nothing. The message says which part of the name."""


class Place(NamedTuple):
    """Object under a name.

    Attributes:
        owner: Module or class that the name stands in; for an inherited method the class that inherits.
        name: Last part of the name.
        found: The object as it is kept: a method may be a classmethod object.
        inherited: True if a base of the owner has the object.
    """

    owner: Any
    name: str
    found: Any
    inherited: bool


def find(module: ModuleType, qualname: str) -> Place:
    """Return the object under a name such as "Class.method".

    Raises:
        NotFoundError: There is none.
    """
    owner: Any = module
    *outer, name = qualname.split(".")
    for part in outer:
        inside = _entry(owner, part)[0]
        if not isinstance(inside, type):
            message = f"{part!r} is no class but a {type(inside).__name__}: name a function or a method of a class"
            raise NotFoundError(message)
        owner = inside
    return Place(owner, name, *_entry(owner, name))


def _entry(owner: Any, name: str) -> tuple[Any, bool]:
    """Return an entry of a module or a class, and True if a base class has it."""
    spaces = [vars(base) for base in owner.__mro__] if isinstance(owner, type) else [vars(owner)]
    for space in spaces:
        if name in space:
            return space[name], space is not spaces[0]
    what = f"the class {owner.__qualname__}" if isinstance(owner, type) else f"the module {owner.__name__}"
    message = f"{what} has no {name!r}{did_you_mean(name, [str(key) for space in spaces for key in space])}"
    raise NotFoundError(message)


def own_function(function: FunctionType) -> FunctionType:
    """Return the innermost function behind the decorators of a function; the function itself if these hide calls.

    A decorator such as `login_required` may answer a call itself: only a call that reaches the inner function is a use.
    A cache answers calls, too, and so does a function registered with `singledispatch`: these are uses. A function may
    also be made to look like a function of another module by `functools.wraps`, which has callers of its own.
    """
    inner = list(inner_functions(function))
    if not inner or _answers(function) or any(map(_answers, wrapped_objects(function))):
        return function
    return inner[-1] if _is_known_as(inner[-1], function) else function


def _answers(target: Any) -> bool:
    return any(attribute(target, name) is not None for name in ANSWERING_NAMES)


def _is_known_as(inner: FunctionType, outer: FunctionType) -> bool:
    """Return True if the name of the inner function leads to the decorated one."""
    try:
        module = sys.modules[inner.__globals__["__name__"]]
        found = find(module, inner.__qualname__).found
    except LookupError:
        return False
    return found is outer or attribute(found, "__func__") is outer
