"""Tracking of a function that the program has defined already."""

from __future__ import annotations

import gc
import sys
from types import BuiltinFunctionType, CellType, FrameType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from ts_autotrack._core.callables import inner_functions, kind_of, managed_generator
from ts_autotrack._core.capture.monitor import monitor
from ts_autotrack._core.capture.stack import watched_codes
from ts_autotrack._core.capture.tracked import is_tracked
from ts_autotrack._core.capture.watching import copied
from ts_autotrack._core.named_features import decorator
from ts_autotrack.launcher._lookup import own_function

if TYPE_CHECKING:
    from ts_autotrack._core.capture.feature import Feature
    from ts_autotrack.launcher._lookup import Place

MAX_HOLDERS = 5
"""Holders of a replaced function that a warning names."""


class Outcome(NamedTuple):
    """Result for one place.

    Attributes:
        state: "tracked", "not callable" or "failed".
        mechanism: "watched in place", "watched" or "wrapped"; empty if not tracked by this call.
        why: Reason for the state or the mechanism.
        replaced: The function that its place does not have any more; None if nothing was replaced.
    """

    state: str
    mechanism: str = ""
    why: str = ""
    replaced: Any = None


def track(place: Place, options: dict[str, Any]) -> Outcome:
    """Track the object of a place as a feature.

    Where Python can watch a function, the function itself is watched: for every caller that holds it, and with nothing
    replaced. Otherwise its decorated form takes the place.
    """
    found = place.found
    if isinstance(found, property):
        return Outcome("not callable", why="a property is read, not called: decorate the function below @property")
    if isinstance(found, type):
        why = f"a class is no function: name a method, such as {place.name}.__init__"
        return Outcome("not callable", why=why)
    if not callable(found) and not isinstance(found, classmethod | staticmethod):
        return Outcome("not callable", why=f"an object of the class {type(found).__name__} is not callable")
    if is_tracked(found) and not _only_looks_tracked(found):
        return Outcome("tracked", why="a decorator, or another name of the function, tracks it already")
    try:
        return _tracked(place, decorator(options), options)
    except (TypeError, ValueError) as error:
        return Outcome("failed", why=str(error))


def _only_looks_tracked(found: Any) -> bool:
    """Return True for a function of its own that `functools.wraps` makes look like a tracked one.

    A decorator holds the function that it calls in its closure.
    """
    return type(found) is FunctionType and found.__closure__ is None and id(found.__code__) not in watched_codes


def _tracked(place: Place, feature: Feature, options: dict[str, Any]) -> Outcome:
    found = place.found
    function = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    if type(function) is not FunctionType:
        return _replaced(place, feature, f"an object of the class {type(function).__name__} is no plain function")
    if place.inherited:
        return _override(place, function, feature, options)
    inner = managed_generator(function) or own_function(function)
    if feature.watch_in_place(inner, kind_of(inner)):
        return Outcome("tracked", "watched in place")
    if inner is not function and _replace_inside(function, inner, feature):
        return Outcome("tracked", "wrapped", _why_wrapped(options))
    return _replaced(place, feature, _why_wrapped(options))


def _override(place: Place, function: FunctionType, feature: Feature, options: dict[str, Any]) -> Outcome:
    """Give a class its own form of an inherited method: calls by the base and its other subclasses are no uses."""
    copy = copied(function, function.__code__)
    watched = feature.watch_in_place(copy, kind_of(copy))
    tracked: Any = copy if watched else feature(copy)
    kind: Any = type(place.found)
    setattr(place.owner, place.name, tracked if kind is FunctionType else kind(tracked))
    return (
        Outcome("tracked", "watched", "inherited") if watched else Outcome("tracked", "wrapped", _why_wrapped(options))
    )


def _replace_inside(function: FunctionType, inner: FunctionType, feature: Feature) -> bool:
    """Replace the inner function in the closure of its decorator; return False if no closure holds it."""
    for outer in (function, *inner_functions(function)):
        for cell in outer.__closure__ or ():
            if _content(cell) is inner:
                cell.cell_contents = feature(inner)
                if outer.__dict__.get("__wrapped__") is inner:
                    outer.__dict__["__wrapped__"] = cell.cell_contents
                return True
    return False


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # empty
        return None


def _replaced(place: Place, feature: Feature, why: str) -> Outcome:
    """Put the decorated form into the place."""
    decorated: Any = feature(place.found)
    if decorated is place.found:  # a task or a command, which runs the decorated function from now on
        return Outcome("tracked", "wrapped", why)
    try:
        setattr(place.owner, place.name, decorated)
    except (AttributeError, TypeError) as error:
        return Outcome("failed", why=f"the attribute cannot be replaced: {error}")
    watched = type(decorated) is FunctionType and id(decorated.__code__) in watched_codes
    replaced = None if isinstance(place.found, BuiltinFunctionType) else place.found  # many others hold these
    return Outcome("tracked", "watched" if watched else "wrapped", why, replaced)


def _why_wrapped(options: dict[str, Any]) -> str:
    if sys.version_info < (3, 12):
        return "Python before 3.12 cannot watch a function"
    needing = [name for name in ("capture", "on") if options.get(name)]
    if needing:
        return f"the option {needing[0]!r} needs a wrapper"
    return "only a wrapper sees how its calls end" if monitor.ready() else str(monitor)


def holders(replaced: dict[str, Any]) -> list[str]:
    """Return the names of modules, and the classes of other objects, that hold a replaced function.

    They call the function without an event. One walk over all objects: some milliseconds, after an import only.
    """
    modules = {id(vars(module)): name for name, module in list(sys.modules.items()) if hasattr(module, "__dict__")}
    found: dict[str, None] = {}
    for holder in gc.get_referrers(*replaced.values()):
        kind = type(holder)
        is_ours = holder is replaced or kind.__module__.startswith("ts_autotrack") or _is_of_a_function(holder)
        if not is_ours and kind not in (FrameType, CellType, tuple):
            found[modules.get(id(holder)) or f"an object of the class {kind.__name__}"] = None
        if len(found) == MAX_HOLDERS:
            break
    return list(found)


def _is_of_a_function(holder: Any) -> bool:
    """Return True for the attributes of a function, such as `__wrapped__` of the decorated form."""
    return type(holder) is FunctionType or (type(holder) is dict and "__wrapped__" in holder)
