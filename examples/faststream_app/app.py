"""Reports by FastStream: one line names the user of every message."""

from __future__ import annotations

import asyncio
import os

from faststream import FastStream
from faststream.redis import RedisBroker

from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.faststream import TrackingMiddleware

broker = RedisBroker(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"), middlewares=[TrackingMiddleware()])
app = FastStream(broker)


@broker.subscriber(list="exports")
@broker.publisher(list="mails")
@track_feature("report_export")
async def export(number: int) -> str:
    """Export a report, and return the message for the next handler."""
    return f"report {number}"


@broker.subscriber(list="mails")
@track_feature("report_mail")
async def mail(text: str) -> None:
    """Mail a report: an event of the user who asked for the export."""
    print(f"mailing {text}")


async def main() -> None:
    """Ask for an export; in a web application, the integration names the user."""
    async with broker:
        with user_context("ann", group_id="acme"):
            await broker.publish(1, list="exports")


if __name__ == "__main__":
    asyncio.run(main())
