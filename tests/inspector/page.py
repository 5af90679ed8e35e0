"""The inspector's page in a browser: a running inspector, and a window that records each violation of the policy."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

ZONE = "America/New_York"
"""Zone of the reader."""
KEY = {"x-api-key": "k"}


class RunningInspector:
    """`ts-autotrack inspect` in a process of its own, which can end and start again at the same address."""

    def __init__(self, database: Path | str = ":memory:") -> None:
        self.port = 0
        self.database = str(database)
        self.client = httpx.Client(headers=KEY, timeout=60)
        self.start()

    def start(self) -> None:
        """Start the process; return once it listens."""
        command = ["inspect", "--quiet", "--port", str(self.port), "--db", self.database]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ts_autotrack.cli", *command], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[3]
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def close(self) -> None:
        """End the process and the connection to it."""
        self.stop()
        self.client.close()

    def send(self, *items: Any, status: int = 200) -> dict[str, Any]:
        """Send items in one request; return the answer."""
        answer = self.client.post(f"{self.url}/api/track", json=list(items))
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def clear(self) -> None:
        """Forget all events and faults."""
        assert self.client.delete(f"{self.url}/events").is_success
        assert self.client.put(f"{self.url}/faults").is_success


def used(
    feature: str, user: str = "user_1", account: str | None = "acme", event_id: str | None = None, **properties: Any
) -> dict[str, Any]:
    """Return the item of one use of a feature, now."""
    context = {"group_id": account, "event_id": event_id}
    return {
        "event_name": "feature_used",
        "user_id": user,
        "timestamp": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "properties": {"feature_name": feature, **properties},
        "context": {name: value for name, value in context.items() if value is not None},
    }


class Observed:
    """Messages of the browser about a page, and the addresses that the page has asked."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.addresses: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))

    def elsewhere(self, url: str) -> list[str]:
        """Return the addresses outside of the inspector; pictures in the page itself are no addresses."""
        return [address for address in self.addresses if not address.startswith((f"{url}/", "data:"))]

    def faults(self) -> list[str]:
        """Return the errors, without errors of connections that ended with the inspector."""
        return [error for error in self.errors if "net::ERR_" not in error]


def rows(page: Page) -> list[list[str]]:
    """Return the cells of the stream as text."""
    script = "lines => lines.map(line => [...line.cells].map(cell => cell.innerText.trim()))"
    found: list[list[str]] = page.locator("#rows tr").evaluate_all(script)
    return found


def contrasts(page: Page) -> Iterator[tuple[str, float]]:
    """Yield each visible text of the page with the contrast of its colour and its ground, by WCAG 2."""
    script = """() => {
      const channels = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
      const solid = (element) => {
        for (let at = element; at; at = at.parentElement) {
          const [r, g, b, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
          if (alpha === 1) return [r, g, b];
        }
        return [255, 255, 255];
      };
      const light = (colour) => {
        const [r, g, b] = colour.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      return [...document.body.querySelectorAll("*")].flatMap((element) => {
        const own = [...element.childNodes].filter((node) => node.nodeType === 3);
        const text = own.map((node) => node.data).join("").trim();
        if (!text || !element.checkVisibility() || element.closest(".for-readers, .skip")) return [];
        const [a, b] = [light(channels(getComputedStyle(element).color).slice(0, 3)), light(solid(element))];
        return [[text, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]];
      });
    }"""
    yield from page.evaluate(script)
