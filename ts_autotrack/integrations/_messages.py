"""Identity to headers and back: parts of the integrations of task queues and message brokers."""

from __future__ import annotations

import json
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ts_autotrack import current_user, request_scope, suppress
from ts_autotrack.integrations._log import warn_once

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from ts_autotrack.typing import Identity

HEADER = "ts_autotrack"
"""Name of the one header, option or label that carries the identity."""
NOBODY = "{}"
"""Header of a message that was published by nobody. A worker writes this header into such a message, so that a retry
stays nobody's, whoever was bound in the meantime.
"""
LONGEST = 8_000
"""Characters of a header; properties are left out of a longer one."""
UNWRITTEN = "the acting user could not be written into a message (%s): the message's events have no user"
_UNREADABLE = "the header 'ts_autotrack' of a message is unreadable (%s): the message's events have no user"
_encode = json.JSONEncoder(default=str).encode  # dumps() makes an encoder for each call, in twice the time
_KEYS = {"user_id", "group_id", "context", "suppressed"}


class Carrier:
    """Writes the acting user into one header: a JSON object with `user_id`, `group_id` and the named properties.

    Args:
        properties: Names of properties, or of fields of the context such as `session_id`, that go along. All others
            stay here: a broker may be read by more people than the application's memory.

    Raises:
        TypeError: `properties` is one text instead of several.
        ValueError: A name is one of the header's own keys.
    """

    __slots__ = ("_names",)

    def __init__(self, properties: Iterable[str] = ()) -> None:
        if isinstance(properties, str):
            message = f"properties={properties!r}: expected names, such as ({properties!r},)"
            raise TypeError(message)
        self._names = tuple(properties)
        if taken := _KEYS.intersection(self._names):
            message = f"properties=...: {min(taken)!r} is a key of the header itself, and cannot name a property"
            raise ValueError(message)

    def header(self) -> str | None:
        """Return the header for a message published here and now; None if nobody is known. Never raises.

        Example:
            >>> from ts_autotrack import user_context
            >>> with user_context("user_123", group_id="account_456"):
            ...     Carrier().header()
            '{"user_id": "user_123", "group_id": "account_456"}'
        """
        try:
            user = current_user()
            values: dict[str, Any] = {}
            if user.user_id is not None:
                values["user_id"] = user.user_id
                if user.group_id is not None:
                    values["group_id"] = user.group_id
            if user.suppressed:
                values["suppressed"] = True
            if not values:
                return None
            named = {
                name: source[name]
                for name in self._names
                for source in (user.context, user.properties)
                if name in source
            }
            text = _encode({**named, **values})
            return text if len(text) <= LONGEST else _encode(values)
        except Exception as error:  # noqa: BLE001 - publishing goes on
            warn_once(UNWRITTEN, type(error).__name__)
        return None


class MessageScope:
    """A block around one message, job or task: a request scope that starts with the user of the message's header.

    Args:
        header: The header as `Carrier` wrote it, as text or bytes; anything else is nobody.
    """

    __slots__ = ("_header", "_request", "_suppressed")

    def __init__(self, header: object) -> None:
        self._header = header
        self._request: Any = None
        self._suppressed: suppress | None = None

    def __enter__(self) -> None:
        identity = _read(self._header)
        if identity.pop("suppressed", None):
            self._suppressed = suppress()
            self._suppressed.__enter__()
        self._request = request_scope(lambda: _shortest(identity)).begin()  # 1 us less than the block itself
        self._request.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._request is not None:
                self._request.__exit__(kind, error, traceback)
                self._request.end()
        finally:
            if self._suppressed is not None:
                self._suppressed.__exit__(kind, error, traceback)


_open: ContextVar[tuple[MessageScope, ...]] = ContextVar("ts_autotrack_messages", default=())
"""Blocks of `begin_message` in the current context, outermost first. A message may be run inside another's function."""


def begin_message(header: object) -> None:
    """Open a block that `end_message` leaves: for frameworks that call one function before a message and one after."""
    scope = MessageScope(header)
    scope.__enter__()
    _open.set((*_open.get(), scope))


def end_message() -> None:
    """Leave the last block of `begin_message` in this context; without one, do nothing."""
    scopes = _open.get()
    if scopes:
        _open.set(scopes[:-1])
        scopes[-1].__exit__(None, None, None)


def _read(header: object) -> dict[str, Any]:
    """Return the identity in a header as a mapping of `user_context`'s arguments; empty for nobody."""
    if header is None:
        return {}
    problem = "TypeError"
    try:
        values = json.loads(header)  # type: ignore[arg-type]  # the except clause is for other types
        if type(values) is dict and type(values.get("user_id", "")) is str and type(values.get("group_id", "")) is str:
            return values
    except (TypeError, ValueError, RecursionError) as error:
        problem = type(error).__name__
    warn_once(_UNREADABLE, problem)
    return {}


def _shortest(identity: dict[str, Any]) -> Identity:
    """Return an identity as a pair, if it has nothing but ids: the scope is made in 6 us, by a mapping in 8."""
    if len(identity) == 2 and "group_id" in identity and "user_id" in identity:  # noqa: PLR2004 - a pair
        return identity["user_id"], identity["group_id"]
    return identity or None
