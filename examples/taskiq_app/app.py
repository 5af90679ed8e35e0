"""Reports by Taskiq: one line names the user of every task."""

from __future__ import annotations

import asyncio
import os

from taskiq_redis import RedisStreamBroker

from ts_autotrack import track_feature, user_context
from ts_autotrack.integrations.taskiq import TrackingMiddleware

broker = RedisStreamBroker(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")).with_middlewares(
    TrackingMiddleware(features={"export": "report_export"})
)


@broker.task("export")
async def export(number: int) -> None:
    """Export a report: an event by `features=` above; a retry after an error keeps the user."""
    await mail.kiq(f"report {number}")


@broker.task("mail")
@track_feature("report_mail")
def mail(text: str) -> None:
    """Mail a report in a thread of the worker: an event of the user who asked for the export."""
    print(f"mailing {text}")


async def main() -> None:
    """Ask for an export; in a web application, the integration names the user."""
    await broker.startup()
    with user_context("ann", group_id="acme"):
        await export.kiq(1)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
