"""A back end that OpenTelemetry instruments, and that knows nothing of ts_autotrack."""

from fastapi import FastAPI, HTTPException
from opentelemetry import _logs, trace

app = FastAPI()
logger = _logs.get_logger(__name__)


def name_user(number: int) -> None:
    """Stand in for a sign-in: write the user and the account to the request's span, by standard attributes."""
    trace.get_current_span().set_attributes({"user.id": f"user_{number}", "account.id": f"account_{number % 10}"})


@app.get("/reports/{number}")
def show_report(number: int) -> dict[str, int]:
    """Answer with a report; 404 has none."""
    name_user(number)
    if number == 404:  # noqa: PLR2004 - a report that nobody has
        raise HTTPException(404)
    return {"report": number}


@app.post("/invitations/{number}")
def invite(number: int) -> dict[str, int]:
    """Emit a log event of OpenTelemetry."""
    user = {"user.id": f"user_{number}", "account.id": f"account_{number % 10}"}
    logger.emit(event_name="invite_sent", attributes={**user, "role": "admin", "email": "JaneDoe@example.com"})
    return {"invited": number}


@app.get("/health")
def health() -> dict[str, str]:
    """Answer a health check: no feature."""
    return {"status": "ok"}
