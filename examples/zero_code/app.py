"""A shop of reports in Flask, which does not know ts_autotrack."""

from __future__ import annotations

import auth
from flask import Flask, Response, request
from reports import Archive, export_report

app = Flask(__name__)


@app.before_request
def authenticate() -> tuple[str, int] | None:
    """Let nobody in without a token."""
    return None if auth.sign_in(request.headers.get("Authorization", "")) else ("Who are you?", 401)


@app.get("/dashboard")
def dashboard() -> dict[str, int]:
    """Show the dashboard."""
    return {"reports": 2}


@app.post("/reports/<int:number>/export")
def export(number: int) -> Response | tuple[str, int]:
    """Export a report."""
    try:
        return Response(export_report(number, "csv"), mimetype="text/csv")
    except LookupError:
        return "No such report", 404


@app.post("/reports/archive")
def archive() -> dict[str, int]:
    """Archive all reports."""
    return {"archived": Archive().store_all()}
