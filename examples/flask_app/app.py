"""A shop of reports in Flask: three lines name the user of every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, g, request

from ts_autotrack import track_feature
from ts_autotrack.integrations.flask import Tracking

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = {"ann-token": ("ann", "acme"), "bob-token": ("bob", "globex")}
"""Users and accounts by token; your application asks its database."""

app = Flask(__name__)
Tracking(app, user=lambda: g.user, features={"POST /reports/<int:number>/export": "report_export"})


@app.before_request
def authenticate() -> tuple[str, int] | None:
    """Let nobody in without a token."""
    g.user = USERS.get(request.headers.get("Authorization", ""))
    return None if g.user else ("Who are you?", 401)


@app.get("/dashboard")
@track_feature("analytics_dashboard")
def dashboard() -> dict[str, int]:
    """Show the dashboard: an event of the feature `analytics_dashboard`."""
    return {"reports": 2}


@app.get("/reports/<int:number>")
@track_feature("report_view")
def report(number: int) -> tuple[str, int]:
    """Show a report; an answer of 404 is no use of the feature."""
    return (f"Report {number}", 200) if number < 3 else ("No such report", 404)  # noqa: PLR2004 - there are two


@app.post("/reports/<int:number>/export")
def export(number: int) -> Response:
    """Export a report: an event by `features=` above."""
    return Response(rows(number), mimetype="text/csv")


@track_feature("row_stream")
def rows(number: int) -> Iterator[str]:
    """Stream a report: an event at the end of the stream, of the same user."""
    yield f"report,{number}\n"
