"""A small SaaS back end with tracked functions and coroutines, several accounts, a failure and an unknown user.

    python examples/quickstart.py

Without THRIVESTACK_ENDPOINT, the example starts `ts-autotrack inspect` and sends the events there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import ts_autotrack
from ts_autotrack import add_properties, track, track_feature, user_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

REPORTS = {"weekly": [3, 5, 8], "monthly": [21, 34]}
USERS = {
    "ana": ("user_1", "acme", "ana@acme.example"),
    "ben": ("user_2", "acme", "ben@acme.example"),
    "eva": ("user_3", "globex", "eva@globex.example"),
}


# --- the product: only the decorators know about tracking


@track_feature("analytics_dashboard", feature_type="core")
def open_dashboard() -> list[str]:
    """Return the names of all reports."""
    return sorted(REPORTS)


@track_feature("report_export", feature_type="sticky", capture=["report", "file_format"])
def export_report(report: str, file_format: str = "pdf") -> str:
    """Return the name of the exported file. An unknown report raises KeyError."""
    add_properties(rows=len(REPORTS[report]))
    return f"{report}.{file_format}"


@track_feature("report_search")
async def search(text: str) -> list[str]:
    """Return the names of all reports with `text` in the name."""
    await asyncio.sleep(0)
    return [name for name in REPORTS if text in name]


@track_feature("row_stream")
async def stream_rows(report: str) -> AsyncIterator[int]:
    """Yield the rows of a report."""
    for row in REPORTS[report]:
        yield row


# --- the edge: the request handler names the user once


async def request(name: str) -> None:
    """Handle one request of a user."""
    user_id, account, email = USERS[name]
    with user_context(user_id, group_id=account, user_email=email, device_type="desktop"):
        open_dashboard()
        await search("week")
        async for _ in stream_rows("monthly"):
            pass
        export_report("weekly", file_format="csv")
        with track_feature("bulk_import") as use:
            use.set(rows=120)
        if name == "eva":
            track("invite_sent", {"role": "admin"})
            try:
                export_report("yearly")
            except KeyError:
                print("eva's export failed, so it is not counted as used")


async def main() -> None:
    """Serve three users at once, and an unknown visitor."""
    await asyncio.gather(*(request(name) for name in USERS))
    open_dashboard()


# --- the rest shows the received events


@contextmanager
def inspector() -> Iterator[str | None]:
    """Start an inspector and yield its URL; yield None with THRIVESTACK_ENDPOINT set."""
    if os.environ.get("THRIVESTACK_ENDPOINT"):
        yield None
        return
    command = [sys.executable, "-m", "ts_autotrack.cli", "inspect", "--port", "0", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        assert process.stdout is not None  # noqa: S101
        first_line = process.stdout.readline()
        if not first_line:
            sys.exit("the inspector did not start; its own message is above")
        url = first_line.split()[3]
        os.environ["THRIVESTACK_ENDPOINT"] = f"{url}/api"
        try:
            yield url
        finally:
            process.terminate()


def show(url: str) -> int:
    """Print the number of uses of each feature by account; return the number of events at the inspector."""
    with urllib.request.urlopen(f"{url}/events") as answer:  # noqa: S310 - an inspector on this machine
        items = [event["item"] for event in json.load(answer)["events"]]
    used = Counter((i["context"]["group_id"], i["properties"].get("feature_name", i["event_name"])) for i in items)
    print(f"\n{'account':<10} {'feature':<22} {'used':>4}")
    for (account, feature), count in sorted(used.items()):
        print(f"{account:<10} {feature:<22} {count:>4}")
    return len(items)


if __name__ == "__main__":
    with inspector() as started:
        asyncio.run(main())
        ts_autotrack.flush(timeout=10)
        stats = ts_autotrack.stats()
        arrived = show(started) if started else stats.delivered
        print(f"\n{stats}")
    # The visitor's event has no user, so it is dropped.
    if missing := stats.accepted - stats.dropped.get("unattributed", 0) - arrived:
        sys.exit(f"{missing} of {stats.accepted} events did not arrive; the messages above say why")
