"""A FastAPI application under load: the user is named by the resolver, or bound in a sync dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request

from ts_autotrack import bind_user, track_feature
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def identity(user: str) -> dict[str, str]:
    """Return a user with an account and a property of the user's own."""
    return {"user_id": user, "group_id": f"account-{user}", "plan": f"plan-{user}"}


def user_of(scope: MutableMapping[str, Any]) -> dict[str, str] | None:
    """Return the identity that the header names, except for routes that bind their user."""
    user = dict(scope["headers"]).get(b"x-user")
    return None if user is None or scope["path"].startswith("/bound/") else identity(user.decode())


def bind(request: Request) -> None:
    """Bind the user that the header names; FastAPI runs this on a thread of its pool."""
    if user := request.headers.get("x-user"):
        bind_user(**identity(user))


@track_feature("work", capture=["number"])
def work(number: int) -> None:
    """Be a feature."""


app = FastAPI()
app.add_middleware(TrackingMiddleware, user=user_of)


@app.api_route("/work/{number}", methods=["GET", "POST"])
async def by_resolver(number: int, request: Request) -> int:
    """Read the whole body, then do the work."""
    size = len(await request.body())
    work(number)
    return size


@app.get("/bound/async/{number}", dependencies=[Depends(bind)])
async def bound_async(number: int) -> None:
    """Do the work on the event loop."""
    work(number)


@app.get("/bound/sync/{number}", dependencies=[Depends(bind)])
def bound_sync(number: int) -> None:
    """Do the work on a thread of the pool."""
    work(number)
