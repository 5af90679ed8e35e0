"""Values that are given as ids: objects of an application, and proxies."""

from __future__ import annotations

import dataclasses
from typing import Any

from werkzeug.local import Local, LocalProxy


class ObjectId:
    """An id of an application, with a text form of its own."""

    def __init__(self, text: object) -> None:
        self.text = text

    def __str__(self) -> Any:
        """Return the given text, or fail."""
        return self.text() if callable(self.text) else self.text


class Session:
    """A user object of an application."""

    def __init__(self, *, is_authenticated: bool) -> None:
        self.is_authenticated = is_authenticated

    def __str__(self) -> str:
        """Return a name, which is no id."""
        return "AnonymousUser"


def namespace(**attributes: Any) -> Any:
    """Return an object of a class with these attributes and a text form."""
    return type("CurrentUser", (), {"__str__": lambda _: "Nobody", **attributes})()


def local(value: object) -> LocalProxy[Any]:
    """Return a proxy, as Flask's `current_user` is."""
    place = Local()
    place.user = value
    return place("user")


def get_user() -> str:
    """Return a user."""
    return "user"


@dataclasses.dataclass
class Record:
    """A whole record."""

    id: int = 5
    email: str = "jane@x"
