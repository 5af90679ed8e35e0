"""Django: the tracking middleware beside a project's own sync and async middleware that names the user."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import markcoroutinefunction
from django.core.handlers.asgi import ASGIHandler
from django.utils.deprecation import MiddlewareMixin

from tests.integrations.apps.django_app import AUTHENTICATION, CHOSEN, SESSION, TRACKING
from tests.integrations.django_requests import asend, both_handlers, database, events, project, tracking
from ts_autotrack import bind_user, current_user, user_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Inspector
    from tests.integrations.django_requests import Get

__all__ = ["database", "project"]


def who(request: Any) -> str | None:
    """Return the user that a request names."""
    return request.headers.get("X-Who")  # type: ignore[no-any-return]


def sync_bind(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a sync middleware that binds the user."""

    def middleware(request: Any) -> Any:
        if user := who(request):
            bind_user(user, group_id=f"account-{user}")
        return get_response(request)

    return middleware


def sync_block(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a sync middleware that opens a block."""

    def middleware(request: Any) -> Any:
        if not (user := who(request)):
            return get_response(request)
        with user_context(user, group_id=f"account-{user}"):
            return get_response(request)

    return middleware


class AsyncBind:
    """Async middleware that binds the user."""

    async_capable, sync_capable = True, False

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        """Bind the user."""
        if user := who(request):
            bind_user(user, group_id=f"account-{user}")
        return await self.get_response(request)


class AsyncBlock(AsyncBind):
    """Async middleware that opens a block."""

    async def __call__(self, request: Any) -> Any:
        """Open the block."""
        if not (user := who(request)):
            return await self.get_response(request)
        async with user_context(user, group_id=f"account-{user}"):
            return await self.get_response(request)


class BoundByMixin(MiddlewareMixin):  # type: ignore[misc]  # Django has no types
    """Middleware of Django's older kind; its methods run in calls of their own."""

    def process_request(self, request: Any) -> None:
        """Bind the user."""
        if user := who(request):
            bind_user(user, group_id=f"account-{user}")

    def process_response(self, request: Any, response: Any) -> Any:
        """Answer with the acting user in a header."""
        response.headers["X-Acting"] = str(current_user().user_id)
        assert who(request) in (None, current_user().user_id)
        return response


KINDS = [sync_bind, sync_block, AsyncBind, AsyncBlock, BoundByMixin]

each_kind = pytest.mark.parametrize("kind", [f"{__name__}.{kind.__name__}" for kind in KINDS])


@each_kind
@both_handlers
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_the_project_names_the_user(project: Inspector, get: Get, kind: str) -> None:
    """A user who is named by the project acts in the view, and in that request only."""
    with tracking(TRACKING, kind):
        for user in ("ann", None, "bob"):
            for path in ("/served/1", "/async/1", "/once-sync/1", "/once/1"):
                get(path, headers={"X-Who": user} if user else {})
    count = 2 if "block" in kind.lower() else 4  # a stream is made after the end of a block
    assert events(project) == [("work", user, f"account-{user}") for user in ("ann", "bob") for _ in range(count)]


@each_kind
def test_concurrent_requests_under_asgi(project: Inspector, kind: str) -> None:
    """Of 40 requests at once, signed in and anonymous, each has its own user in sync and async views."""
    users = [None if number % 3 == 0 else f"user-{number}" for number in range(20)]

    async def send_all() -> None:
        handler = ASGIHandler()
        named = [{"X-Who": user} if user else {} for user in users]
        await asyncio.gather(
            *(asend(handler, path, headers) for headers in named for path in ("/served/1", "/async/1"))
        )

    with tracking(TRACKING, kind):
        asyncio.run(send_all())
    expected = [("work", user, f"account-{user}") for user in users if user for _ in range(2)]
    assert sorted(events(project)) == sorted(expected)


@both_handlers
def test_a_bound_user_goes_before_request_user(project: Inspector, get: Get) -> None:
    """`bind_user` replaces `request.user` in its request: an administrator acts for a customer."""
    with tracking(TRACKING, CHOSEN, SESSION, AUTHENTICATION, f"{__name__}.sync_bind", user="user.username"):
        get("/served/1", "user-1", headers={"X-Who": "customer"})
        get("/async/1", "user-1")
    assert events(project) == [("work", "customer", "account-customer"), ("work", "user-1", None)]
