"""A shop of reports in FastAPI: three lines name the user of every event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse

from ts_autotrack import bind_user, track_feature
from ts_autotrack.integrations.asgi import TrackingMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your application asks its database."""

app = FastAPI()
app.add_middleware(TrackingMiddleware, features={"POST /reports/{number}/export": "report_export"})


def authenticate(authorization: Annotated[str, Header()] = "") -> str:
    """Let nobody in without a token; all of the request belongs to the token's user."""
    if authorization not in USERS:
        raise HTTPException(401, "Who are you?")
    user, account = USERS[authorization]
    bind_user(user, group_id=account)
    return user


@app.get("/dashboard", dependencies=[Depends(authenticate)])
@track_feature("analytics_dashboard")
async def dashboard() -> dict[str, int]:
    """Show the dashboard: an event of the feature `analytics_dashboard`."""
    return {"reports": 2}


@app.get("/reports/{number}", dependencies=[Depends(authenticate)])
@track_feature("report_view")
def report(number: int) -> str:
    """Show a report; an answer of 404 is no use of the feature."""
    if number > 2:  # noqa: PLR2004 - there are two
        raise HTTPException(404, "No such report")
    return f"Report {number}"


@app.post("/reports/{number}/export", dependencies=[Depends(authenticate)])
async def export(number: int) -> StreamingResponse:
    """Export a report: an event by `features=` above."""
    return StreamingResponse(rows(number), media_type="text/csv")


@track_feature("row_stream")
async def rows(number: int) -> AsyncIterator[str]:
    """Stream a report: an event at the end of the stream, of the same user."""
    yield f"report,{number}\n"
