"""A Flask application for tests with real servers; `python -m tests.integrations.apps.flask_app PORT` runs waitress."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from flask import Flask, request

from ts_autotrack import bind_user, track_feature
from ts_autotrack.integrations.flask import Tracking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ts_autotrack.typing import Identity


def identity() -> Identity:
    """Return the user, the account and a property of the request; None for anonymous requests."""
    name = request.headers.get("X-User")
    return {"user_id": name, "group_id": f"account-{name}", "plan": f"plan-{name}"} if name else None


app = Flask(__name__)
Tracking(app, identity)


@app.before_request
def log_in() -> None:
    """Bind the user of every second request; the others leave this to `identity`."""
    name = request.headers.get("X-User")
    if name and (request.view_args or {}).get("number", 0) % 2:
        bind_user(name, group_id=f"account-{name}", plan=f"plan-{name}")


@app.get("/work/<int:number>")
@track_feature("work", capture=["number"])
def work(number: int) -> str:
    """Track one event in the view."""
    return str(number)


@app.get("/stream/<int:number>")
def stream(number: int) -> Iterator[str]:
    """Track one event in the body's iteration."""
    return rows(number)


@track_feature("rows", capture=["number"])
def rows(number: int) -> Iterator[str]:
    """Return a stream."""
    yield str(number)
    yield "\n"


if __name__ == "__main__":
    import waitress  # type: ignore[import-untyped]

    waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), threads=8)
