"""The inspector's page in a real browser: many pages, odd reports, and filters over history, new events and Back."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.conftest import wait_until
from tests.inspector.browser import browser
from tests.inspector.page import RunningInspector, rows, used
from tests.inspector.test_page import context, page, running

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Dialog, Page

__all__ = ["browser", "context", "page", "running"]
pytestmark = pytest.mark.slow

REPORTED = ("stats", "unattributed", "warnings", "functions", "targets", "settings", "off_reason", "version", "python")
"""Parts of a report."""


def test_hidden_pages_leave_room_for_others(running: RunningInspector, context: BrowserContext) -> None:
    """A browser has six connections to one server: hidden pages hold none, and catch up when they are shown."""
    running.clear()
    pages = []
    for _ in range(7):
        page = context.new_page()
        page.goto(running.url)
        page.locator("#connection", has_text="Live").wait_for()
        turn(page, hidden=True)
        pages.append(page)
    running.send(used("meanwhile"))
    turn(pages[0], hidden=False)
    pages[0].locator("#rows tr", has_text="meanwhile").wait_for()
    for page in pages:
        page.close()


def test_seventh_visible_page_says_that_it_waits(running: RunningInspector, context: BrowserContext) -> None:
    """Four visible pages are live; further ones load, say why they are not live, and catch up when there is room."""
    running.clear()
    pages = [context.new_page() for _ in range(7)]
    for number, window in enumerate(pages):
        window.goto(running.url)
        text = "Live" if number < 4 else "Waiting: four other windows are live"
        window.locator("#connection", has_text=text).wait_for()
    running.send(used("meanwhile"))
    for window in pages[:3]:
        window.close()
    for window in pages[3:]:
        window.locator("#connection", has_text="Live").wait_for()
        window.locator("#rows tr", has_text="meanwhile").wait_for()
        assert len(rows(window)) == 1
        window.close()


def turn(page: Page, *, hidden: bool) -> None:
    """Tell a page that its window is hidden or shown."""
    page.evaluate(
        "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_reports_of_any_form_are_shown(running: RunningInspector, page: Page) -> None:
    """A report with parts of unexpected types leaves the page at work: these parts are left out."""
    odd: tuple[Any, ...] = (None, "text", 5, [None], [1], {}, {"dropped": None, "accepted": 10**30}, [[10**30, {}]])
    for number, value in enumerate(odd):
        report = {"pid": number, "program": "odd", **dict.fromkeys(REPORTED, value)}
        assert running.client.post(f"{running.url}/reports", json=report).is_success
    page.keyboard.press("4")
    page.locator("#view-processes .card").nth(len(odd) - 1).wait_for()
    page.reload()
    page.locator("#view-processes .card").nth(len(odd) - 1).wait_for()


def test_history_and_new_events_pass_the_same_filter(running: RunningInspector, page: Page) -> None:
    """A text copied from an item finds new events as well as earlier ones; so does a text in other letters."""
    for number, text in enumerate(('"rows": [1, 2], "none": {}', "mÜLL", "{}", "is required")):
        running.clear()
        page.goto(f"{running.url}/?{urlencode({'text': text})}")
        page.locator("#connection", has_text="Live").wait_for()
        running.send(used("fits", f"Müller {number}", rows=[1, 2], none={}))
        running.send({"event_name": "faulty"}, status=400)
        page.locator("#rows tr").first.wait_for()
        live = rows(page)
        page.reload()
        page.locator("#rows tr").first.wait_for()
        assert [row[2] for row in rows(page)] == [row[2] for row in live]


def test_page_recovers_from_a_locked_database(running: RunningInspector, context: BrowserContext) -> None:
    """A filter that could not be answered is answered later; the search for fewer letters ends, and Delete says why."""
    running.clear()
    running.send(used("search"), used("export"))
    page, ended, told = context.new_page(), list[str](), list[str]()

    def told_by(dialog: Dialog) -> None:
        told.append(dialog.message)
        dialog.accept()

    page.on("requestfailed", lambda request: ended.append(request.url))
    page.on("dialog", told_by)
    page.goto(running.url)
    page.locator("#connection", has_text="Live").wait_for()
    with contextlib.closing(sqlite3.connect(running.database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for text in ("exp", "export"):
            with page.expect_request(re.compile(f"text={text}$")):
                page.locator("[name=text]").fill(text)
        page.locator("#connection", has_text="Reconnecting").wait_for()
        page.locator("#clear").click()
        page.locator("#clear-dialog .danger").click()
        wait_until(lambda: page.locator("#clear").is_visible() and bool(told), "the page says what went wrong")
        other.rollback()
    page.locator("#connection", has_text="Live").wait_for()
    wait_until(lambda: [row[2] for row in rows(page)] == ["export"], "the table shows the events that match")
    assert "could not be deleted: the inspector's database fails: database is locked" in told[0]
    assert any(url.endswith("text=exp") for url in ended)
    page.close()


def test_back_restores_the_filter(running: RunningInspector, page: Page) -> None:
    """After a click on a cell, the browser's Back shows the whole table of accounts again, and Forward the cell."""
    running.send(used("search", "ann", "acme"), used("export", "bob", "globex"))
    page.keyboard.press("2")
    page.locator("button.cell").first.click()
    wait_until(lambda: len(rows(page)) == 1, "the stream shows the events of the cell")
    page.go_back()
    wait_until(lambda: page.locator("[name=feature]").input_value() == "", "the filter is empty")
    wait_until(lambda: page.locator("button.cell").count() == 2, "the table shows both cells")
    page.go_forward()
    wait_until(lambda: len(rows(page)) == 1, "the stream shows the events of the cell again")
