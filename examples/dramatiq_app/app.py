"""Reports by Dramatiq: two lines name the user of every message."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit

from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.dramatiq import TrackingMiddleware

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))
broker.add_middleware(TrackingMiddleware(features={"export": "report_export"}), before=AgeLimit)
dramatiq.set_broker(broker)


@dramatiq.actor
def export(number: int) -> None:
    """Export a report: an event by `features=` above; a retry after an error keeps the user."""
    mail.send(f"report {number}")


@dramatiq.actor
@track_feature("report_mail")
def mail(text: str) -> None:
    """Mail a report: an event of the user who asked for the export."""
    print(f"mailing {text}")


if __name__ == "__main__":
    with user_context("ann", group_id="acme"):  # in a web application, the integration names the user
        export.send(1)
