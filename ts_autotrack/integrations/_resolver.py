"""Who acts, without code of the application: a function named in the settings, or the framework's own user."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
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
        self._lock = threading.RLock()
        self._function: Callable[..., Any] | None = None

    def __call__(self) -> Identity:
        """Return who acts, without an argument."""
        return self.load()()

    def load(self) -> Callable[..., Any]:
        """Return the function. Never raises: a function that cannot be loaded is nobody, with one warning."""
        with self._lock:
            if self._function is None:
                self._function = self._find() or _nobody
            return self._function

    def _find(self) -> Callable[..., Any] | None:
        module, _, path = self._target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for name in path.split("."):
                found = getattr(found, name)
        except Exception as error:  # noqa: BLE001 - the application's module
            warn_once(_NOT_FOUND, repr(self._target), f"{type(error).__name__}: {error}")
            return None
        if not callable(found):
            warn_once(_NOT_FOUND, repr(self._target), f"a {type(found).__name__} is no function")
            return None
        return found  # type: ignore[no-any-return]


def with_argument(user: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
    """Return a resolver that takes the argument of an integration, whether `user` takes one or none.

    A `NamedUser` is loaded now: call this when the application is complete.
    """
    if user is None:
        return None
    function: Callable[..., Any] = _loaded(user)
    if takes_argument(function):
        return function
    if inspect.iscoroutinefunction(function):

        async def ask(_: object) -> Any:
            return await function()

        return ask
    return lambda _: function()


def with_argument_later(user: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
    """Return the same; a `NamedUser` is loaded by the first event."""
    if user is None:
        return None
    found: list[Callable[[Any], Any]] = []

    def ask(argument: object) -> Any:
        if not found:
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
    try:
        signature = inspect.signature(function)
        signature.bind(None)
    except (TypeError, ValueError):
        return False
    try:
        signature.bind()
    except TypeError:
        return True
    return False


def flask_login_user(app: Any) -> str | None:
    """Return the id of Flask-Login's current user in a request of an application; None for an anonymous user.

    The id is the user's attribute `id`, or the result of `get_id()` without such an attribute: `get_id` may return a
    token of the session in its place.
    """
    flask_login: Any = sys.modules.get("flask_login")
    if flask_login is None or not hasattr(app, "login_manager"):
        return None
    user = flask_login.current_user
    if not getattr(user, "is_authenticated", False):
        return None
    found = getattr(user, "id", None)
    return found if found is not None else user.get_id()  # type: ignore[no-any-return]


def starlette_user(scope: Any) -> str | None:
    """Return the `identity` of the user of Starlette's AuthenticationMiddleware, if the application's class defines it.

    The identity of a `SimpleUser` is a name to display, or in the package mcp the id of an agent's program.
    """
    module: Any = sys.modules.get("starlette.authentication")
    user = scope.get("user")
    if module is None or not isinstance(user, module.BaseUser) or user.is_authenticated is not True:
        return None
    if type(user).identity in (module.BaseUser.identity, module.SimpleUser.identity):
        return None
    identity: str = user.identity
    return identity


def _loaded(user: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind a `NamedUser`."""
    return user.load() if isinstance(user, NamedUser) else user


def _nobody(*_: object) -> None:
    return None
