"""Users of the shop."""

from __future__ import annotations

from flask import g

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your application asks its database."""


def sign_in(token: str) -> bool:
    """Remember the user of the request; return False without one."""
    g.user = USERS.get(token)
    return g.user is not None


def current_user() -> tuple[str, str] | None:
    """Return user and account of the request."""
    user: tuple[str, str] | None = g.get("user")
    return user
