"""Replaced functions and methods of other packages, each of which can be put back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

_FAULT = "an application, broker, server or call of %s could not be tracked by itself (%s): it goes on untracked"


class Patches:
    """Functions and methods that one integration has replaced.

    Example:
        >>> import types
        >>> module = types.SimpleNamespace(double=lambda number: 2 * number)
        >>> patches = Patches()
        >>> patches.add(module, "double", lambda original, _, args, kwargs: original(*args) + 1)
        >>> module.double(3)
        7
        >>> patches.undo()
        >>> module.double(3)
        6
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[int, str], tuple[Any, Any, Any]] = {}  # the owner, the original and its replacement

    def add(self, owner: Any, name: str, wrapper: Any) -> None:
        """Replace a function of a module or a method of a class; a second call for the same name changes nothing.

        Args:
            owner: The module, or the class. A tool such as OpenTelemetry may have put a subclass in its place: the
                class that defines the method is patched.
            name: Name of the function.
            wrapper: wrapt's kind of wrapper: called with the original (bound), the instance, `args` and `kwargs`.

        Raises:
            AttributeError: The owner has no such function: another version of the package.
        """
        from wrapt import FunctionWrapper  # lazily: 35 ms, in launched programs without any framework, too

        def wrapped(original: Any, is_made: Callable[[], bool]) -> Any:
            return FunctionWrapper(original, wrapper, enabled=is_made)

        self._replace(owner, name, wrapped)

    def change_property(self, owner: Any, name: str, change: Callable[[Any, Any], Any]) -> None:
        """Let a property of a class return `change(instance, value)`; after an exception of `change`, the value.

        Raises:
            AttributeError: The owner has no such property: another version of the package.
        """

        def changed(original: Any, is_made: Callable[[], bool]) -> Any:
            def read(instance: Any) -> Any:
                value = original.__get__(instance)
                made = attempt(_package(owner), change, instance, value) if is_made() else None
                return value if made is None else made

            return property(read, original.fset, original.fdel, original.__doc__)

        self._replace(owner, name, changed)

    def _replace(self, owner: Any, name: str, make: Callable[[Any, Callable[[], bool]], Any]) -> None:
        """Replace an attribute by `make(original, is_made)`; `is_made` returns False after `undo`."""
        bases = [base for base in getattr(owner, "__mro__", (owner,)) if base is not object]
        owner = next((base for base in bases if name in vars(base)), owner)
        key = id(owner), name
        with self._lock:
            if key in self._made:
                return
            original = vars(owner).get(name)
            if original is None:
                message = f"{getattr(owner, '__qualname__', getattr(owner, '__name__', owner))} has no {name!r}"
                raise AttributeError(message)
            made = self._made
            replacement = make(original, lambda: key in made and made[key][2] is replacement)
            made[key] = owner, original, replacement
            setattr(owner, name, replacement)

    def after(self, owner: Any, name: str, action: Callable[[Any], None]) -> None:
        """Call `action(instance)` after each successful call of a method, such as `__init__`."""

        def act(original: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            attempt(_package(owner), action, instance)
            return result

        self.add(owner, name, act)

    def before(self, owner: Any, name: str, action: Callable[[Any], None]) -> None:
        """Call `action(instance)` before each call of a method."""

        def act(original: Callable[..., Any], instance: Any, args: Any, kwargs: Any) -> Any:
            attempt(_package(owner), action, instance)
            return original(*args, **kwargs)

        self.add(owner, name, act)

    def undo(self) -> None:
        """Put the originals back. Where another tool has patched since, its patch stays, and ours does nothing."""
        with self._lock:
            for (_, name), (owner, original, replacement) in self._made.items():
                if vars(owner).get(name) is replacement:
                    setattr(owner, name, original)
            self._made.clear()


def attempt(framework: str, action: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of an action of an integration; after an exception None. Never raises."""
    try:
        return action(*arguments)
    except Exception as error:  # noqa: BLE001 - the application goes on
        warn_once(_FAULT, framework, type(error).__name__)
        return None


def _package(owner: Any) -> str:
    """Return the name of the package of a class, for messages."""
    return str(owner.__module__).partition(".")[0]
