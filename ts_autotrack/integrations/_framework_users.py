"""The acting user as a framework itself knows the user: resolvers of automatic integrations."""

from __future__ import annotations

import sys
from typing import Any


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
