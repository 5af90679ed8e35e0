"""Who acts in a request of Django: `request.user`, or what the setting TS_AUTOTRACK names in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.utils.functional import LazyObject

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ts_autotrack.integrations._django_settings import Source, TrackingSettings
    from ts_autotrack.typing import Identity

_UNKNOWN: Any = object()
"""Stands for a user that was not loaded yet."""


class RequestUser:
    """Resolver of a request: who acts in it.

    Attributes:
        can_await: True if the answer may be a coroutine: the code around the request awaits it.
        is_read: True while an async stream is read.
    """

    __slots__ = ("_request", "_settings", "can_await", "is_read")

    def __init__(self, request: Any, tracking: TrackingSettings, *, can_await: bool) -> None:
        self._request = request
        self._settings = tracking
        self.can_await = can_await
        self.is_read = False

    def __call__(self) -> Identity | Awaitable[Identity]:
        """Return who acts, or a coroutine that finds out; None if nobody does, or if no coroutine can be awaited."""
        in_loop = _in_event_loop()
        if self._settings.awaits and not (self.can_await or in_loop):
            answer: Identity = async_to_sync(self._load)()
            return answer
        user = None
        if self._settings.names_user and in_loop:
            user = _loaded_user(self._request)
        if user is not _UNKNOWN and not self._settings.awaits:
            try:
                return _combined(*self._ids(user))
            except SynchronousOnlyOperation:  # a path or a callable that needs the database, in an async view
                pass
        return self._load() if self.can_await else None

    async def _load(self) -> Identity:
        """Find who acts where the database, or a coroutine function of the project, must be awaited."""
        request = self._request
        user = _loaded_user(request) if self._settings.names_user else None
        if user is _UNKNOWN:
            user = await request.auser() if hasattr(request, "auser") else None
            user = user if getattr(user, "is_authenticated", False) else None
        try:
            ids = self._ids(user)
        except SynchronousOnlyOperation:
            ids = await sync_to_async(self._ids)(user)
        return _combined(*[await found if isawaitable(found) else found for found in ids])

    def _ids(self, user: Any) -> tuple[Any, Any]:
        """Return the user and the account, or awaitables of them; `user` stands for a `request.user` that is lazy."""
        who = _found(self._settings.user, self._request, user)
        if who is None or self._settings.group is None:
            return who, None
        return who, _found(self._settings.group, self._request, user)


def _found(source: Source, request: Any, user: Any) -> Any:
    """Return the value at a path of attributes, or of a callable; None for an anonymous user and absent attributes."""
    if not isinstance(source, tuple):
        return source(request)
    value = request
    for name in source:
        if value is request and user is not None and name == "user":
            value = user
        elif value is not request and getattr(value, "is_authenticated", True) is False:
            return None
        else:
            value = getattr(value, name, None)
        if value is None:
            return None
    return value


def _combined(user: Any, group: Any) -> Identity:
    """Return the answer of a resolver; an account that came with the user goes before the setting `group`."""
    answer: Identity = user if group is None or isinstance(user, (tuple, Mapping)) else (user, group)
    return answer


def _loaded_user(request: Any) -> Any:
    """Return the user of a request if no database is needed for that; `_UNKNOWN` otherwise."""
    user = getattr(request, "user", None)
    if not isinstance(user, LazyObject):
        return user  # set by login(), Django REST framework, or a middleware of the project
    for name in ("_cached_user", "_acached_user"):  # as Django's AuthenticationMiddleware keeps a user that was loaded
        loaded = getattr(request, name, None)
        if getattr(loaded, "is_authenticated", False):
            return loaded
    return _UNKNOWN


def _in_event_loop() -> bool:
    """Return True in a thread with a running event loop, where Django refuses to use the database."""
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - documented; ten times as fast as an exception
