"""Arguments named in `capture=`: where a call of the decorated callable carries them.

A decorator between the caller and the function may supply or drop arguments, and `inspect.signature` looks through it:
positions in that signature do not fit the arguments as given. So an argument of an inner function is captured where the
decorator calls that function, by a spy in the function's place.
"""

from __future__ import annotations

import builtins
import sys
from functools import partial
from itertools import count
from types import BuiltinFunctionType, FunctionType, MethodType

from ts_autotrack._core.callables import (  # noqa: F401 - some for the templates
    MAX_WRAPPERS,
    attribute,
    drop_frame,
    kind_of,
    name_of,
)
from ts_autotrack._core.capture.call import merge_extras
from ts_autotrack._core.capture.stack import attach, current_frame, innermost_call
from ts_autotrack._core.closures import CO_VARKEYWORDS, CODE_NAME, closure, parameters_of
from ts_autotrack._core.diagnostics import fault
from ts_autotrack._core.snapshot import snapshot

TYPE_CHECKING = False  # typing costs as much to import as this whole library
if TYPE_CHECKING:
    from collections.abc import Iterator
    from inspect import Signature
    from typing import Any

    from ts_autotrack._core.capture.call import Argument

FILENAME = "<ts_autotrack capture>"
"""File name of the spies' code."""
_numbers = count(1)
_SPY = """
def call({parameters}):
    ts.note(ts_code_name, ts_names, {captured})
    try:
        return ts_function({arguments})
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        raise
"""
_COROUTINE_SPY = """
async def call({parameters}):
    ts.note(ts_code_name, ts_names, {captured})
    try:
        ts_coroutine = ts_function({arguments})
        {forget}
        return await ts_coroutine
    except py.BaseException as ts_error:
        ts.drop_frame(ts_error)
        raise
"""


def split(target: Any, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[Argument, ...], str]:
    """Arrange the capture of the named arguments of `target`.

    Returns:
        The names that `target` itself takes, and their places in a call; all other names are captured by spies. The
        name for the code of the wrapper, by which the spies find its calls.

    Raises:
        TypeError: If no function behind `target` has such an argument, or the calls of that function cannot be seen.
    """
    if not names:
        return (), (), CODE_NAME
    code_name = f"{CODE_NAME} {next(_numbers)}"
    places = {} if _hides(target) else _own_places(target)
    own: list[Argument] = []
    spied = _spy_on(target, [name for name in names if name not in places], code_name)
    for name in names:
        if name in places:
            own.append(places[name])
        elif name in spied:
            continue
        elif None in places and _takes_any_keyword(target):
            own.append((name, -1, ()))
        else:
            message = (
                f"track_feature(capture=...): {name_of(target)} has no argument {name!r}, only "
                f"{sorted(place for place in places if place)}. Behind other decorators an argument may be out of "
                "sight: put @track_feature below them."
            )
            raise TypeError(message)
    return tuple(name for name, _, _ in own), tuple(own), code_name if spied else CODE_NAME


def note(code_name: str, names: tuple[str, ...], values: tuple[Any, ...]) -> None:
    """Attach the arguments of an inner function to the tracked call around it. Never raises."""
    try:
        call = innermost_call(current_frame(2))
        while call is not None and call.f_code.co_name != code_name:  # a call of another feature
            call = innermost_call(call.f_back)
        if call is not None:
            attach(call, snapshot(dict(zip(names, values, strict=True))), merge_extras)
    except RecursionError:
        pass
    except Exception as error:  # noqa: BLE001 # pragma: no cover - the barrier: nothing known raises here
        fault("capturing arguments", error)


def _own_places(target: Any) -> dict[str | None, Argument]:
    """Return the places of a callable's own arguments; None is among the names if it takes any keyword argument."""
    places: dict[str | None, Argument] = {}
    try:
        parameters = _signature(target).parameters.values()
    except ValueError:  # a function of C without a signature
        return places
    for position, parameter in enumerate(parameters):
        if parameter.kind is parameter.VAR_KEYWORD:
            places[None] = "", -1, ()
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            given = position if parameter.kind is not parameter.KEYWORD_ONLY else -1
            default = () if parameter.default is parameter.empty else (parameter.default,)
            places[parameter.name] = parameter.name, given, default
    return places


def _signature(target: Any) -> Signature:
    """Return the signature. No annotation is evaluated: it may name types that exist for type checkers only."""
    import inspect

    options: dict[str, Any] = {"follow_wrapped": _passes_on(target)}
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        options["annotation_format"] = Format.FORWARDREF
    return inspect.signature(target, **options)


def _passes_on(target: Any) -> bool:
    """Return True for an object of C that passes its arguments on unchanged, such as functools' caches."""
    return type(target).__module__ == "functools" and not isinstance(target, partial)


def _hides(target: Any) -> bool:
    """Return True for an object that stands for a function and may call it with other arguments: wrapt's, others'."""
    exact = (FunctionType, MethodType, BuiltinFunctionType, partial)
    return not isinstance(target, type) and type(target) not in exact and not _passes_on(target) and _has_inner(target)


def _has_inner(target: Any) -> bool:
    return next(_chain(target), None) is not None


def _chain(target: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each object around a function with the callable that it wraps, from the outside in."""
    for _ in range(MAX_WRAPPERS):
        inner = attribute(target, "__wrapped__")
        if inner is None or not callable(inner):
            return
        yield target, inner
        target = inner


def _takes_any_keyword(target: Any) -> bool:
    """Return True if the innermost function takes any keyword argument: a decorator alone is no sign of one."""
    *_, inner = [target, *(inner for _, inner in _chain(target))]
    return type(inner) is not FunctionType or bool(inner.__code__.co_flags & CO_VARKEYWORDS)


def _spy_on(target: Any, names: list[str], code_name: str) -> set[str]:
    """Put spies in the place of inner functions with these arguments; return the names that spies will see."""
    spied: set[str] = set()
    for holder, inner in _chain(target):
        function = inner.__func__ if isinstance(inner, (classmethod, staticmethod)) else inner
        if type(function) is FunctionType:
            seen = tuple(name for name in parameters_of(function) if name in names and name not in spied)
            if seen and _replace(holder, inner, seen, code_name):
                spied.update(seen)
    return spied


def _spy(inner: Any, names: tuple[str, ...], code_name: str) -> Any:
    """Return a spy on a function, a classmethod or a staticmethod."""
    if isinstance(inner, (classmethod, staticmethod)):
        return type(inner)(_spy(inner.__func__, names, code_name))
    template = _COROUTINE_SPY if kind_of(inner) == "coroutine" else _SPY
    cells = {"ts": sys.modules[__name__], "py": builtins, "ts_names": names, "ts_code_name": code_name}
    return closure(template, inner, cells, filename=FILENAME, captured=names)


def _replace(holder: Any, inner: object, names: tuple[str, ...], code_name: str) -> bool:
    """Make an object that wraps a function call a spy instead; return False if its reference to it is not found."""
    replaced = False
    if type(holder) is FunctionType:
        for cell in holder.__closure__ or ():
            try:
                found = cell.cell_contents
            except ValueError:  # an empty cell
                continue
            if _stands_for(found, inner):
                cell.cell_contents = _spy(found, names, code_name)
                replaced = True
    elif _calls_wrapped(type(holder)):
        holder.__wrapped__ = _spy(inner, names, code_name)
        replaced = True
    else:
        attributes = getattr(holder, "__dict__", {})
        for key, value in list(attributes.items()):
            if key != "__wrapped__" and _stands_for(value, inner):
                attributes[key] = _spy(value, names, code_name)
                replaced = True
    return replaced


def _calls_wrapped(cls: type) -> bool:
    """Return True for proxies that call their `__wrapped__`: proxies of wrapt, in C or Python, and similar classes."""
    if issubclass(cls, (classmethod, staticmethod)):  # `__wrapped__` cannot be set
        return False
    wrapt = sys.modules.get("wrapt")
    base = getattr(wrapt, "BaseObjectProxy", getattr(wrapt, "ObjectProxy", None))  # of wrapt 2, of wrapt 1
    return base in cls.__mro__ or any("__wrapped__" in vars(ancestor) for ancestor in cls.__mro__)


def _stands_for(found: Any, inner: object) -> bool:
    """Return True for the inner function, or for a spy of another feature in its place."""
    while type(found) is FunctionType and found is not inner and found.__code__.co_filename == FILENAME:
        found = found.__dict__.get("__wrapped__")
    return found is inner
