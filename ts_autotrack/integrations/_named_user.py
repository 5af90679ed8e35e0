"""The resolver of automatic integrations that the settings name, called as each framework calls its resolvers."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts_autotrack.typing import Identity

_NOT_FOUND = "TS_AUTOTRACK_USER=%s could not be loaded (%s): no user is known. The form is 'package.module:function'"


class NamedUser:
    """The setting TS_AUTOTRACK_USER as a resolver: the function's module is imported when the first event asks.

    Args:
        target: "package.module:function". The function takes no argument, or the one that the integration has: the
            connection scope (ASGI), the request (Django, Flask, aiohttp), the `ServicerContext` (gRPC), or the access
            token (MCP). It returns the acting user, as the resolver of `ts_autotrack.request_scope` does.

    Example:
        >>> NamedUser("getpass:getuser").load().__name__
        'getuser'
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._function: Callable[..., Any] | None = None

    def __call__(self) -> Identity:
        """Call the function without an argument; return the acting user."""
        return self.load()()

    def is_ready(self) -> bool:
        """Return True if the function is known, or known to be missing; False while its module is being imported."""
        self.load()
        return self._function is not None

    def load(self) -> Callable[..., Any]:
        """Return the function. Never raises: a function that cannot be loaded is nobody, with one warning.

        While its module is being imported, the function is nobody for the moment. No lock is held: another thread may
        import the module, and ask during this import.
        """
        if self._function is None:
            self._function = self._find()
        return self._function or _nobody

    def _find(self) -> Callable[..., Any] | None:
        name, _, path = self._target.partition(":")
        module: Any = None
        try:
            module = found = _module(name)
            for part in path.split("."):
                found = getattr(found, part)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the application's module; a script may exit
            if getattr(getattr(module, "__spec__", None), "_initializing", False):
                return None
            warn_once(_NOT_FOUND, repr(self._target), f"{type(error).__name__}: {error}")
            return _nobody
        if not callable(found):
            warn_once(_NOT_FOUND, repr(self._target), f"a {type(found).__name__} is no function")
            return _nobody
        if not (_takes(found) or _takes(found, None)):
            warn_once(_NOT_FOUND, repr(self._target), "it needs other arguments than one or none")
            return _nobody
        return found  # type: ignore[no-any-return]


def _module(name: str) -> Any:
    """Return a module. A program started as a script is the module of its file: a second import would run it again."""
    if name not in sys.modules:
        main: Any = sys.modules.get("__main__")
        file: Any = getattr(main, "__file__", None)
        spec = importlib.util.find_spec(name) if file else None
        if spec is not None and spec.origin and os.path.realpath(spec.origin) == os.path.realpath(file):
            return main
    return importlib.import_module(name)


def with_argument(user: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
    """Return a resolver that takes the argument of an integration, whether `user` takes one or none.

    A `NamedUser` is loaded now: call this when the application is complete.
    """
    if user is None:
        return None
    if isinstance(user, NamedUser) and not user.is_ready():
        return with_argument_later(user)
    function: Callable[..., Any] = _loaded(user)
    if takes_argument(function):
        return function
    if inspect.iscoroutinefunction(function):

        async def ask(_: object) -> Any:
            return await function()

        return ask
    return lambda _: function()


def with_argument_later(user: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
    """Return a resolver that takes the argument of an integration. A `NamedUser` is loaded by the first event."""
    if user is None:
        return None
    found: list[Callable[[Any], Any]] = []

    def ask(argument: object) -> Any:
        if not found:
            if isinstance(user, NamedUser) and not user.is_ready():
                return None
            found.append(with_argument(user) or _nobody)
        return found[0](argument)

    return ask


def without_argument(user: Callable[..., Any] | None) -> Callable[[], Any] | None:
    """Return a resolver without arguments; None if `user` needs an argument, or is a coroutine function."""
    if user is None:
        return None
    function = _loaded(user)
    return None if takes_argument(function) or inspect.iscoroutinefunction(function) else function


def takes_argument(function: Callable[..., Any]) -> bool:
    """Return True if a function needs one positional argument; an optional argument is not given.

    Example:
        >>> takes_argument(lambda request: None), takes_argument(lambda request=None: None)
        (True, False)
    """
    return not _takes(function) and _takes(function, None)


def _takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Return True if a function can be called with these arguments; a built-in one may tell nothing and take none."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return not arguments
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _loaded(user: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind a `NamedUser`."""
    return user.load() if isinstance(user, NamedUser) else user


def _nobody(*_: object) -> None:
    return None
